-- name: devices_with_ledger
-- The devices of an account, the newest first, with when a push to each was accepted last, and when and why one failed last.
SELECT device.*, told.succeeded_at, told.failed_at, told.failure
FROM device LEFT JOIN (
    SELECT device_id,
        max(done_at) FILTER (WHERE outcome = 'accepted') AS succeeded_at,
        max(done_at) FILTER (WHERE outcome <> 'accepted') AS failed_at,
        (array_agg(coalesce(reason, outcome) ORDER BY done_at DESC) FILTER (WHERE outcome <> 'accepted'))[1] AS failure
    FROM push_job WHERE account = $1 AND state = 'done' AND outcome NOT LIKE 'suppressed:%' GROUP BY device_id
) AS told USING (device_id)
WHERE device.account = $1 ORDER BY device.registered_at DESC, device_id;
