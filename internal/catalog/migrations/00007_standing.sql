-- +goose Up

-- What a session that has ended says of its job. Sources: 0 none was looked at, 1 none of them could be read, 2 some could. Outcome: 0 it was
-- not run, or has not ended; 1 it ended early, before anything was copied; 2 it says how machines fare. Target: 1 if it could read that as it
-- ended. Of older sessions sources and target are guessed.
ALTER TABLE sessions ADD COLUMN sources BIGINT NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN target BIGINT NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN outcome BIGINT NOT NULL DEFAULT 0;
UPDATE sessions SET outcome = 2 WHERE ended_at <> 0 AND state <> 'not run';
UPDATE sessions SET outcome = 1 WHERE state IN ('expired', 'stopped')
	AND (counts LIKE '%"copied":0%' OR counts NOT LIKE '%"copied":%') AND (counts LIKE '%"claimed":0%' OR counts NOT LIKE '%"claimed":%');
UPDATE sessions SET sources = 2 WHERE state IN ('done', 'partial');
UPDATE sessions SET target = 1 WHERE state IN ('done', 'partial', 'expired');
CREATE INDEX sessions_sources ON sessions (job, sources, id);
CREATE INDEX sessions_target ON sessions (job, target, id);
CREATE INDEX sessions_outcome ON sessions (job, outcome, id);
