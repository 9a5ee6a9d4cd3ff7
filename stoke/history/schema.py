"""The schema of the history: steps in order, each run once; `user_version` counts those that ran."""

MIGRATIONS = (
    """
    CREATE TABLE jobs (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        backend TEXT NOT NULL,
        scope TEXT NOT NULL,
        state TEXT NOT NULL,
        provisional INTEGER NOT NULL DEFAULT 0,
        stop_requested INTEGER NOT NULL DEFAULT 0,
        exit_code INTEGER,
        reason TEXT,
        submitted_at REAL NOT NULL,
        started_at REAL,
        finished_at REAL,
        cpu_seconds REAL,
        peak_memory INTEGER,
        image TEXT,
        request_hash TEXT,
        predicted_python TEXT,
        predicted_system TEXT,
        predicted_seconds REAL,
        log_lines INTEGER NOT NULL DEFAULT 0,
        log_bytes INTEGER NOT NULL DEFAULT 0,
        log_gaps INTEGER NOT NULL DEFAULT 0,
        spec TEXT,
        nonce TEXT
    );
    CREATE INDEX jobs_by_time ON jobs (submitted_at);
    CREATE INDEX jobs_by_request ON jobs (request_hash, backend, scope, submitted_at);
    CREATE INDEX jobs_unfinished ON jobs (state)
        WHERE state IN ('queued', 'starting', 'running') OR provisional;
    CREATE TABLE phases (
        job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        started_at REAL NOT NULL,
        seconds REAL,
        hit INTEGER,
        packages INTEGER,
        cached INTEGER,
        bytes INTEGER,
        PRIMARY KEY (job_id, name)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE cache_sizes (
        backend TEXT NOT NULL,
        node TEXT NOT NULL,
        scope TEXT NOT NULL,
        kind TEXT NOT NULL,
        measured_at REAL NOT NULL,
        bytes INTEGER NOT NULL,
        entries INTEGER NOT NULL,
        PRIMARY KEY (backend, node, scope, kind, measured_at)
    ) WITHOUT ROWID;
    """,
    """
    ALTER TABLE jobs ADD COLUMN python_hash TEXT;
    ALTER TABLE jobs ADD COLUMN system_hash TEXT;
    ALTER TABLE jobs ADD COLUMN predicted_counts TEXT;
    ALTER TABLE jobs ADD COLUMN use_cache INTEGER NOT NULL DEFAULT 1;
    UPDATE jobs SET use_cache = 0 WHERE json_valid(spec) AND json_extract(spec, '$.use_cache') = 0;
    ALTER TABLE phases ADD COLUMN key TEXT;
    ALTER TABLE phases ADD COLUMN made_at REAL;
    CREATE TABLE asked_packages (
        request_hash TEXT NOT NULL,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        PRIMARY KEY (request_hash, kind, name)
    ) WITHOUT ROWID;
    CREATE TABLE notes (
        job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        kind TEXT NOT NULL,
        text TEXT NOT NULL,
        mend TEXT,
        PRIMARY KEY (job_id, number),
        UNIQUE (job_id, kind, text)
    ) WITHOUT ROWID;
    CREATE TABLE job_packages (
        job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
        kind TEXT NOT NULL,
        package TEXT NOT NULL,
        cached INTEGER NOT NULL,
        PRIMARY KEY (job_id, kind, package)
    ) WITHOUT ROWID;
    CREATE TABLE held_environments (
        backend TEXT NOT NULL,
        node TEXT NOT NULL,
        scope TEXT NOT NULL,
        kind TEXT NOT NULL,
        key TEXT NOT NULL,
        present INTEGER NOT NULL,
        changed_at REAL NOT NULL,
        PRIMARY KEY (backend, scope, kind, key, node)
    ) WITHOUT ROWID;
    CREATE TABLE held_packages (
        backend TEXT NOT NULL,
        node TEXT NOT NULL,
        scope TEXT NOT NULL,
        kind TEXT NOT NULL,
        key TEXT NOT NULL,
        name TEXT NOT NULL,
        package TEXT NOT NULL,
        PRIMARY KEY (backend, scope, kind, key, node, name, package)
    ) WITHOUT ROWID;
    CREATE INDEX held_by_name ON held_packages (backend, scope, kind, name, package);
    CREATE TABLE held_requests (
        backend TEXT NOT NULL,
        node TEXT NOT NULL,
        scope TEXT NOT NULL,
        kind TEXT NOT NULL,
        request TEXT NOT NULL,
        key TEXT NOT NULL,
        changed_at REAL NOT NULL,
        PRIMARY KEY (backend, scope, kind, request, node)
    ) WITHOUT ROWID;
    """,
    # Schemas 2 and 3 named the hint of a note "mend".
    "ALTER TABLE notes RENAME COLUMN mend TO hint",
    # The newest figures of a job, and all of them as `stoke.history.usage` packs them.
    """
    CREATE TABLE usage (
        job_id TEXT NOT NULL PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
        at REAL NOT NULL,
        cores REAL NOT NULL,
        memory INTEGER NOT NULL,
        curve BLOB NOT NULL
    );
    ALTER TABLE phases ADD COLUMN activity TEXT
    """,
    """
    CREATE TABLE workspaces (
        backend TEXT NOT NULL,
        name TEXT NOT NULL,
        used_at REAL,
        measured_at REAL,
        bytes INTEGER,
        files INTEGER,
        PRIMARY KEY (backend, name)
    ) WITHOUT ROWID;
    """,
    # A job has results_at once its results are collected, and results_problem if they cannot be. The
    # engine no longer has the jobs that finished before.
    """
    ALTER TABLE jobs ADD COLUMN results_files INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE jobs ADD COLUMN results_bytes INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE jobs ADD COLUMN results_at REAL;
    ALTER TABLE jobs ADD COLUMN results_problem TEXT;
    ALTER TABLE jobs ADD COLUMN checkpoint TEXT;
    UPDATE jobs SET results_at = coalesce(finished_at, submitted_at)
        WHERE state IN ('succeeded', 'failed', 'stopped', 'lost') AND NOT provisional;
    """,
    """
    ALTER TABLE jobs ADD COLUMN job_kind TEXT;
    ALTER TABLE jobs ADD COLUMN held_until REAL;
    """,
    """
    CREATE TABLE queue (
        job_id TEXT NOT NULL PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
        place REAL NOT NULL,
        priority INTEGER NOT NULL DEFAULT 0,
        after TEXT NOT NULL DEFAULT '[]'
    ) WITHOUT ROWID;
    CREATE TABLE paused_queues (
        backend TEXT NOT NULL PRIMARY KEY
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE submission_keys (
        token TEXT NOT NULL,
        key TEXT NOT NULL,
        digest TEXT NOT NULL,
        job_id TEXT NOT NULL,
        made_at REAL NOT NULL,
        PRIMARY KEY (token, key)
    ) WITHOUT ROWID;
    """,
    # `sweep` and `task` are set in the jobs that are tasks of a sweep, which is a job itself.
    """
    ALTER TABLE jobs ADD COLUMN sweep TEXT;
    ALTER TABLE jobs ADD COLUMN task INTEGER;
    CREATE INDEX jobs_by_sweep ON jobs (sweep, state, provisional, task) WHERE sweep IS NOT NULL;
    CREATE INDEX jobs_listed ON jobs (submitted_at) WHERE sweep IS NULL;
    CREATE TABLE sweeps (
        id TEXT NOT NULL PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
        value_names TEXT NOT NULL,
        tasks INTEGER NOT NULL,
        begun INTEGER NOT NULL DEFAULT 0,
        max_parallel INTEGER,
        max_fails INTEGER,
        closed TEXT
    ) WITHOUT ROWID;
    CREATE TABLE sweep_tasks (
        sweep_id TEXT NOT NULL REFERENCES sweeps (id) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        task_values TEXT NOT NULL,
        PRIMARY KEY (sweep_id, number)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE attempts (
        job_id TEXT NOT NULL PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
        first TEXT NOT NULL,
        number INTEGER NOT NULL,
        cause TEXT,
        next TEXT,
        why TEXT
    ) WITHOUT ROWID;
    CREATE INDEX attempts_by_first ON attempts (first, number);
    CREATE INDEX attempts_undecided ON attempts (job_id) WHERE next IS NULL;
    ALTER TABLE queue ADD COLUMN starts_at REAL;
    """,
    """
    CREATE TABLE notifications (
        job_id TEXT NOT NULL PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
        sent_at REAL
    ) WITHOUT ROWID;
    CREATE INDEX notifications_pending ON notifications (job_id) WHERE sent_at IS NULL;
    """,
    # The name of the schedule that a job is a run of.
    """
    ALTER TABLE jobs ADD COLUMN schedule TEXT;
    CREATE INDEX jobs_by_schedule ON jobs (schedule, submitted_at) WHERE schedule IS NOT NULL;
    """,
    # Schedules whose runs their engine begins, with what their jobs have in common.
    """
    CREATE TABLE engine_schedules (
        id TEXT NOT NULL PRIMARY KEY,
        schedule TEXT NOT NULL,
        backend TEXT NOT NULL,
        scope TEXT NOT NULL,
        image TEXT,
        request_hash TEXT NOT NULL,
        python_hash TEXT,
        system_hash TEXT,
        checkpoint TEXT,
        spec TEXT NOT NULL,
        nonce TEXT NOT NULL
    ) WITHOUT ROWID;
    """,
)
