#!/usr/bin/env bash
# Make what the compose file needs and nobody should commit: random passwords and keys in secrets/
# and the names in .env. What exists is kept, so that running it again changes no password.
#   make-secrets.sh MLFLOW_HOST S3_HOST [FOLDER]
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: make-secrets.sh MLFLOW_HOST S3_HOST [FOLDER]" >&2; exit 2; }
folder=${3:-$(cd "$(dirname "$0")" && pwd)}
umask 077
mkdir -p "$folder/secrets"
cd "$folder/secrets"

random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
once() { [ -s "$1" ] || random >"$1"; }
once postgres_password
once mlflow_admin_password
once mlflow_secret_key

if [ ! -s s3_identities ]; then
    identity() { # name actions
        local access secret
        access=VF$(random | head -c 18 | tr a-f A-F) secret=$(random)
        printf '[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' \
            "$access" "$secret" >"s3_$1_keys"
        printf '{"name": "%s", "credentials": [{"accessKey": "%s", "secretKey": "%s"}], "actions": [%s]}' \
            "$1" "$access" "$secret" "$2"
    }
    # Only the administrator has rights of its own; the others get theirs by the bucket's policy:
    # vfsearch stack init --bucket vfsearch --writer .../user/trainer --reader .../user/mlflow
    {
        printf '{"identities": [\n'
        identity administrator '"Admin", "Read", "Write", "List"'
        printf ',\n'; identity trainer ''
        printf ',\n'; identity mlflow ''
        printf '\n]}\n'
    } >s3_identities.new
    mv s3_identities.new s3_identities
fi

cat >"$folder/.env" <<ENV
MLFLOW_HOST=$1
S3_HOST=$2
VFSEARCH_USER=$(id -u):$(id -g)
ENV
echo "secrets in $folder/secrets, names in $folder/.env; next: docker compose up -d --build --wait"
