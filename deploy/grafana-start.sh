#!/bin/sh
# Grafana's first start draws the admin's password; there is never a moment with a known one. It lies beside the database
# that it opens, so that the two come and go together. `make up` copies it to .secrets/grafana_admin_password.
set -eu
umask 077
file=${GF_SECURITY_ADMIN_PASSWORD__FILE:?says where the password is kept}
if [ ! -s "$file" ]; then
  head -c 24 /dev/urandom | base64 | tr '+/' '-_' >"$file.new"
  mv "$file.new" "$file"
fi
exec /run.sh "$@"
