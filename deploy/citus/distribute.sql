-- Distributes an installed schema of Convsync over a Citus cluster, by account; rooms by room, beside them. Run once, on the
-- coordinator, after `convsync schema` and before the first start:  psql -f distribute.sql
-- What that means for each statement: docs/wide.md §4. Not tried on Citus itself; a test checks it against the schema.

BEGIN;
CREATE EXTENSION IF NOT EXISTS citus;

-- The state of an account: all of it in the account's shard.
SELECT create_distributed_table('account', 'jid', shard_count => 64);
SELECT create_distributed_table('conversation', 'account', colocate_with => 'account');
SELECT create_distributed_table('message', 'account', colocate_with => 'account');
SELECT create_distributed_table('change', 'account', colocate_with => 'account');
SELECT create_distributed_table('call', 'account', colocate_with => 'account');
SELECT create_distributed_table('device', 'account', colocate_with => 'account');
SELECT create_distributed_table('push_job', 'account', colocate_with => 'account');
SELECT create_distributed_table('watcher', 'account', colocate_with => 'account');
SELECT create_distributed_table('bootstrap', 'account', colocate_with => 'account');

-- A room, its members and what happens in it; its index of messages has the room as account, so it is there, too.
SELECT create_distributed_table('room', 'jid', colocate_with => 'account');
SELECT create_distributed_table('room_member', 'room', colocate_with => 'account');
SELECT create_distributed_table('room_entry', 'room', colocate_with => 'account');

-- A token is unique over all accounts.
SELECT create_distributed_table('device_token', 'digest', colocate_with => 'none');

-- Few rows, of hosts, processes and keys.
SELECT create_reference_table('feed_position');
SELECT create_reference_table('feed_stream');
SELECT create_reference_table('quarantine');
SELECT create_reference_table('lease');
SELECT create_reference_table('provider_token');
SELECT create_reference_table('schema_version');
COMMIT;
