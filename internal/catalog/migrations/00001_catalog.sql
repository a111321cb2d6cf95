-- One text for SQLite and PostgreSQL. Times are nanoseconds since 1970 in UTC, 0 where there is none. Yes and no are 1 and 0.
-- Names that come from sources are percent-encoded; lists and figures are JSON. BYTEA is what PostgreSQL calls bytes; SQLite
-- keeps bytes in a column of any type.

-- +goose Up

-- Numbers that only grow, so that none is ever given twice.
CREATE TABLE counters (
	name TEXT PRIMARY KEY,
	value BIGINT NOT NULL
);
INSERT INTO counters (name, value) VALUES ('id', 0), ('version', 0);

-- What people configured: jobs and repositories as their YAML.
CREATE TABLE resources (
	kind TEXT NOT NULL,
	name TEXT NOT NULL,
	version BIGINT NOT NULL,
	document TEXT NOT NULL,
	created_at BIGINT NOT NULL,
	changed_at BIGINT NOT NULL,
	deleted_at BIGINT NOT NULL,
	PRIMARY KEY (kind, name)
);

-- Where each job stands in its schedule.
CREATE TABLE jobs (
	name TEXT PRIMARY KEY,
	enabled BIGINT NOT NULL,
	start_at BIGINT NOT NULL,
	last_at BIGINT NOT NULL,
	next_at BIGINT NOT NULL
);
CREATE INDEX jobs_next ON jobs (next_at);

-- Every machine that was ever heard of. The id is the hash of its key.
CREATE TABLE machines (
	id TEXT PRIMARY KEY,
	platform TEXT NOT NULL,
	instance TEXT NOT NULL,
	uuid TEXT NOT NULL,
	source_name TEXT NOT NULL,
	native_id TEXT NOT NULL,
	name TEXT NOT NULL,
	labels TEXT NOT NULL,
	named_at BIGINT NOT NULL,
	retired_at BIGINT NOT NULL
);

-- When a source repository had a machine.
CREATE TABLE sightings (
	repository TEXT NOT NULL,
	machine TEXT NOT NULL REFERENCES machines (id),
	first_at BIGINT NOT NULL,
	last_at BIGINT NOT NULL,
	missing_at BIGINT NOT NULL,
	PRIMARY KEY (repository, machine)
);
CREATE INDEX sightings_machine ON sightings (machine);

-- What a job's selection came to, in the order of processing.
CREATE TABLE selected (
	job TEXT NOT NULL,
	machine TEXT NOT NULL REFERENCES machines (id),
	ordinal BIGINT NOT NULL,
	since_at BIGINT NOT NULL,
	PRIMARY KEY (job, machine)
);
CREATE INDEX selected_machine ON selected (machine);

CREATE TABLE sessions (
	id BIGINT PRIMARY KEY,
	job TEXT NOT NULL,
	boundary_at BIGINT NOT NULL,
	started_at BIGINT NOT NULL,
	ended_at BIGINT NOT NULL,
	state TEXT NOT NULL,
	phase TEXT NOT NULL,
	reason TEXT NOT NULL,
	counts TEXT NOT NULL,
	cancel BIGINT NOT NULL,
	owner TEXT NOT NULL,
	lease_until BIGINT NOT NULL,
	epoch BIGINT NOT NULL
);
CREATE UNIQUE INDEX sessions_live ON sessions (job) WHERE ended_at = 0;
CREATE UNIQUE INDEX sessions_boundary ON sessions (job, boundary_at) WHERE boundary_at <> 0;
CREATE INDEX sessions_job ON sessions (job, id);
CREATE INDEX sessions_ended ON sessions (ended_at, id);

CREATE TABLE phases (
	session BIGINT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
	ordinal BIGINT NOT NULL,
	name TEXT NOT NULL,
	started_at BIGINT NOT NULL,
	ended_at BIGINT NOT NULL,
	state TEXT NOT NULL,
	reason TEXT NOT NULL,
	counts TEXT NOT NULL,
	PRIMARY KEY (session, ordinal)
);

CREATE TABLE tasks (
	id BIGINT PRIMARY KEY,
	session BIGINT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
	machine TEXT NOT NULL REFERENCES machines (id),
	point TEXT NOT NULL,
	point_at BIGINT NOT NULL,
	source TEXT NOT NULL,
	target TEXT NOT NULL,
	ordinal BIGINT NOT NULL,
	state TEXT NOT NULL,
	reason TEXT NOT NULL,
	attempts BIGINT NOT NULL,
	next_at BIGINT NOT NULL,
	cancel BIGINT NOT NULL,
	owner TEXT NOT NULL,
	lease_until BIGINT NOT NULL,
	epoch BIGINT NOT NULL,
	checkpoint BYTEA NOT NULL,
	progress TEXT NOT NULL,
	created_at BIGINT NOT NULL,
	began_at BIGINT NOT NULL,
	ended_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX tasks_session ON tasks (session, machine, point);
CREATE INDEX tasks_state ON tasks (state, ordinal, id);
CREATE INDEX tasks_machine ON tasks (machine);

-- The points of each repository, as a mirror of its log. A mirror is made anew beside the old one, as another edition, and
-- readers go over to it at once: they follow mirrors.edition.
CREATE TABLE mirrors (
	repository TEXT PRIMARY KEY,
	edition BIGINT NOT NULL,
	repository_id TEXT NOT NULL,
	head_number BIGINT NOT NULL,
	head_checksum TEXT NOT NULL,
	refreshed_at BIGINT NOT NULL
);

CREATE TABLE editions (
	id BIGINT PRIMARY KEY,
	repository TEXT NOT NULL,
	state TEXT NOT NULL,
	written BIGINT NOT NULL,
	began_at BIGINT NOT NULL
);
CREATE INDEX editions_repository ON editions (repository);

CREATE TABLE points (
	edition BIGINT NOT NULL REFERENCES editions (id),
	id TEXT NOT NULL,
	machine TEXT NOT NULL,
	pseudonym TEXT NOT NULL,
	created_at BIGINT NOT NULL,
	state TEXT NOT NULL,
	reason TEXT NOT NULL,
	damaged BIGINT NOT NULL,
	size BIGINT NOT NULL,
	PRIMARY KEY (edition, id)
);
CREATE INDEX points_machine ON points (edition, machine, created_at);
CREATE INDEX points_id ON points (id);

CREATE TABLE claims (
	edition BIGINT NOT NULL,
	point TEXT NOT NULL,
	job TEXT NOT NULL,
	reason TEXT NOT NULL,
	flags TEXT NOT NULL,
	PRIMARY KEY (edition, point, job),
	FOREIGN KEY (edition, point) REFERENCES points (edition, id) ON DELETE CASCADE
);

-- Files of sources that were found broken when they were read, until they change.
CREATE TABLE broken_files (
	repository TEXT NOT NULL,
	identity TEXT NOT NULL,
	size BIGINT NOT NULL,
	modified_at BIGINT NOT NULL,
	reason TEXT NOT NULL,
	found_at BIGINT NOT NULL,
	PRIMARY KEY (repository, identity)
);
CREATE INDEX broken_files_found ON broken_files (repository, found_at);

-- How full each repository was, for forecasts.
CREATE TABLE figures (
	repository TEXT NOT NULL,
	at BIGINT NOT NULL,
	points BIGINT NOT NULL,
	machines BIGINT NOT NULL,
	logical_bytes BIGINT NOT NULL,
	stored_bytes BIGINT NOT NULL,
	free_bytes BIGINT NOT NULL,
	PRIMARY KEY (repository, at)
);
CREATE INDEX figures_at ON figures (at);
