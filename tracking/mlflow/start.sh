#!/bin/sh
# Start MLflow with users. Secrets come from files and go into the environment of this process only:
# neither its arguments nor the address of the database hold any.
#   SECRETS   folder of postgres_password, mlflow_admin_password, mlflow_secret_key, s3_mlflow_keys
#   DATABASE, ARTIFACTS, LISTEN (host:port), ALLOWED_HOSTS
set -eu
umask 077
config=$(mktemp)
cat >"$config" <<INI
[mlflow]
database_uri = $DATABASE
admin_username = admin
# What users may do with runs and models of others: EDIT lets a team log into shared experiments
# and promote each other's models; deleting and sharing stay with the owner.
default_permission = EDIT
# A password is hashed once a minute and user, not at every request: 10 ms instead of 210 ms.
auth_cache_ttl_seconds = 60
INI
PGPASSWORD=$(cat "$SECRETS/postgres_password")
MLFLOW_AUTH_ADMIN_PASSWORD=$(cat "$SECRETS/mlflow_admin_password")
MLFLOW_FLASK_SERVER_SECRET_KEY=$(cat "$SECRETS/mlflow_secret_key")
export PGPASSWORD MLFLOW_AUTH_ADMIN_PASSWORD MLFLOW_FLASK_SERVER_SECRET_KEY
export MLFLOW_AUTH_CONFIG_PATH="$config"
export AWS_SHARED_CREDENTIALS_FILE="$SECRETS/s3_mlflow_keys" AWS_EC2_METADATA_DISABLED=true
export MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
exec mlflow server --app-name basic-auth \
    --host "${LISTEN%:*}" --port "${LISTEN##*:}" --workers 1 --allowed-hosts "$ALLOWED_HOSTS" \
    --backend-store-uri "$DATABASE" --default-artifact-root "$ARTIFACTS" --no-serve-artifacts
