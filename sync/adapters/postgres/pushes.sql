-- What is to be pushed, what is due, and whose a node or a token is.

-- name: node_owners
-- Whose devices have this node: one account, where the node is of our making.
SELECT DISTINCT account FROM device WHERE node = $1;

-- name: token_owners
-- Whose devices hold these tokens.
SELECT DISTINCT account FROM device_token WHERE app = $1 AND environment = $2 AND digest = ANY ($3::bytea[]);

-- name: due_jobs
-- Queued jobs that are due, the most urgent lane first; none of the held queues, however much waits there.
WITH RECURSIVE way(queue) AS (  -- from one queue to the next, without a look at what is in it
    SELECT min(queue) FROM push_job WHERE state = 'queued' AND queue >= ''
    UNION ALL
    SELECT (SELECT min(queue) FROM push_job WHERE state = 'queued' AND queue > way.queue)
    FROM way WHERE way.queue IS NOT NULL
)
SELECT found.* FROM way CROSS JOIN unnest($1::smallint[]) AS own(lane) CROSS JOIN LATERAL (
    SELECT account, job_id, push_job.lane, peer, about, sid, push_job.queue, not_before FROM push_job
    WHERE state = 'queued' AND push_job.queue = way.queue AND push_job.lane = own.lane AND not_before <= $2
    ORDER BY not_before LIMIT $3
) AS found
WHERE way.queue <> ALL ($4::text[]) ORDER BY found.lane, found.not_before LIMIT $3;

-- name: next_job_at
-- When the next queued job is due, outside of the held queues.
WITH RECURSIVE way(queue) AS (
    SELECT min(queue) FROM push_job WHERE state = 'queued' AND queue >= ''
    UNION ALL
    SELECT (SELECT min(queue) FROM push_job WHERE state = 'queued' AND queue > way.queue)
    FROM way WHERE way.queue IS NOT NULL
)
SELECT min(due.at) FROM way CROSS JOIN unnest($1::smallint[]) AS own(lane) CROSS JOIN LATERAL (
    SELECT min(not_before) AS at FROM push_job
    WHERE state = 'queued' AND push_job.queue = way.queue AND push_job.lane = own.lane
) AS due
WHERE way.queue <> ALL ($2::text[]);

-- name: overdue_jobs
-- Queued jobs for calls that have no time left, in these queues.
SELECT account, job_id, lane, peer, about, sid, queue FROM push_job
WHERE state = 'queued' AND queue = ANY ($2::text[]) AND lane = 1 AND not_before <= $1 AND deadline <= $1 LIMIT $3;

-- name: abandoned_jobs
-- Jobs that left before an instant and have no outcome.
SELECT account, job_id, lane, peer, about, sid, queue FROM push_job
WHERE state = 'attempted' AND attempted_at < $1 ORDER BY attempted_at LIMIT $2;

-- name: queue_depth
-- Due jobs by lane, and the age of the oldest.
SELECT lane, count(*) AS jobs, extract(epoch FROM $1 - min(not_before))::float8 AS oldest
FROM push_job WHERE state = 'queued' AND not_before <= $1 GROUP BY lane;
