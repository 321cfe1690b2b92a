-- What is to be pushed, what is due, and whose a node or a token is.

-- name: node_owners
-- Whose devices have this node: one account, where the node is of our making.
SELECT DISTINCT account FROM device WHERE node = $1;

-- name: token_owners
-- Whose devices hold these tokens.
SELECT DISTINCT account FROM device_token WHERE app = $1 AND environment = $2 AND digest = ANY ($3::bytea[]);

-- name: due_jobs
-- Queued jobs that are due, the most urgent lane first; none of the held queues, however much waits there. As long as nothing
-- of these is in front, queues are not looked at: there may be thousands in which nothing is due.
WITH RECURSIVE front AS MATERIALIZED (
    SELECT found.* FROM unnest($1::smallint[]) AS own(lane) CROSS JOIN LATERAL (
        SELECT account, job_id, push_job.lane, peer, about, sid, push_job.queue, not_before FROM push_job
        WHERE state = 'queued' AND push_job.lane = own.lane AND not_before <= $2
        ORDER BY not_before LIMIT $3
    ) AS found
    ORDER BY found.lane, found.not_before LIMIT $3
), blocked AS MATERIALIZED (
    SELECT EXISTS (SELECT FROM front WHERE front.queue = ANY ($4::text[])) AS yes
), way(queue) AS (  -- from one queue to the next, without a look at what is in it
    SELECT (SELECT min(queue) FROM push_job WHERE state = 'queued' AND queue >= '') FROM blocked WHERE yes
    UNION ALL
    SELECT (SELECT min(queue) FROM push_job WHERE state = 'queued' AND queue > way.queue)
    FROM way WHERE way.queue IS NOT NULL
)
SELECT front.* FROM blocked CROSS JOIN front WHERE NOT yes
UNION ALL
(
    SELECT found.* FROM way CROSS JOIN unnest($1::smallint[]) AS own(lane) CROSS JOIN LATERAL (
        SELECT account, job_id, push_job.lane, peer, about, sid, push_job.queue, not_before FROM push_job
        WHERE state = 'queued' AND push_job.queue = way.queue AND push_job.lane = own.lane AND not_before <= $2
        ORDER BY not_before LIMIT $3
    ) AS found
    WHERE way.queue <> ALL ($4::text[]) ORDER BY found.lane, found.not_before LIMIT $3
)
ORDER BY lane, not_before;

-- name: next_job_at
-- When the next queued job is due, outside of the held queues; likewise.
WITH RECURSIVE front AS MATERIALIZED (
    SELECT found.* FROM unnest($1::smallint[]) AS own(lane) CROSS JOIN LATERAL (
        SELECT queue, not_before FROM push_job
        WHERE state = 'queued' AND push_job.lane = own.lane ORDER BY not_before LIMIT 1
    ) AS found
), blocked AS MATERIALIZED (
    SELECT EXISTS (SELECT FROM front WHERE front.queue = ANY ($2::text[])) AS yes
), way(queue) AS (
    SELECT (SELECT min(queue) FROM push_job WHERE state = 'queued' AND queue >= '') FROM blocked WHERE yes
    UNION ALL
    SELECT (SELECT min(queue) FROM push_job WHERE state = 'queued' AND queue > way.queue)
    FROM way WHERE way.queue IS NOT NULL
)
SELECT min(due.at) FROM (
    SELECT not_before AS at FROM blocked CROSS JOIN front WHERE NOT yes
    UNION ALL
    SELECT found.at FROM way CROSS JOIN unnest($1::smallint[]) AS own(lane) CROSS JOIN LATERAL (
        SELECT min(not_before) AS at FROM push_job
        WHERE state = 'queued' AND push_job.queue = way.queue AND push_job.lane = own.lane
    ) AS found
    WHERE way.queue <> ALL ($2::text[])
) AS due;

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
