#!/usr/bin/env bash
# Start the stack on this machine: `make up`, or deploy/up.sh where there is no make. Doing it again is harmless.
#
# It looks for a GPU that Docker can hand out, adds to .env what is missing there (what you set stays), starts everything,
# waits until all of it is healthy, and says where it is. Arguments go to `docker compose up`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Tests have their own.
readonly DEV=${LLMSWAP_DEV:-/dev} MEMINFO=${LLMSWAP_MEMINFO:-/proc/meminfo} SOCKET=${DOCKER_SOCKET:-/var/run/docker.sock}
readonly SHARED=(deploy prometheus grafana loadtests)   # mounted into containers
readonly PASSWORD=.secrets/grafana_admin_password

say() { printf '%s\n' "$*"; }
die() { printf 'make up: %s\n' "$*" >&2; exit 1; }

need_docker() {
  command -v docker >/dev/null || die "Docker is not installed (docker: command not found)"
  docker compose version >/dev/null 2>&1 || die "Docker is here without its compose plugin (docker compose version)"
  docker info >/dev/null 2>&1 || die "the Docker engine does not answer $(id -un): is it running, and may you use it? (docker info)"
}

# Containers run as users of their own, who read these folders as anybody would. After a clone with umask 077 they cannot.
need_readable() {
  local hidden
  hidden=$(find "${SHARED[@]}" -name '.*' -prune -o \
    \( -type d ! -perm -005 -o -type f ! -perm -004 \) -print | head -n 3 | paste -sd ' ' -)
  [ -z "$hidden" ] || die "the containers cannot read $hidden: chmod -R o+rX ${SHARED[*]}"
}

gpu() { # nvidia, amd or none
  if [ -e "$DEV/nvidiactl" ] || { command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; }; then
    echo nvidia
  elif [ -e "$DEV/kfd" ]; then
    echo amd
  else
    echo none
  fi
}

# A reservation that cannot be met would keep the whole stack down, so Docker must be able to hand the GPU out.
can_hand_out_nvidia() {
  command -v nvidia-container-runtime-hook >/dev/null || command -v nvidia-ctk >/dev/null \
    || docker info --format '{{range $name, $_ := .Runtimes}}{{$name}} {{end}}' | grep -qw nvidia
}

is_set() { # is_set NAME: in the environment or in .env, be it to nothing
  [ -n "${!1+set}" ] || grep -qE "^[[:space:]]*(export[[:space:]]+)?$1[[:space:]]*=" .env 2>/dev/null
}

settle() { # settle NAME VALUE: add it to .env, unless somebody has decided already
  is_set "$1" && return
  [ -s .env ] || say "# Read by docker compose; deploy/README.md lists what can be set. make up adds what is missing and changes nothing." >.env
  [ -z "$(tail -c 1 .env)" ] || echo >>.env
  say "$1=$2" >>.env
}

group_of() { stat -c %g "$1" 2>/dev/null; }

write_env() { # write_env GPU
  local files=docker-compose.yml override
  case $1 in
    nvidia) files+=:deploy/compose.gpu.yml ;;
    amd)
      files+=:deploy/compose.amd.yml
      settle LLMSWAP_VIDEO_GID "$(group_of "$DEV"/dri/card* || echo 44)"
      settle LLMSWAP_RENDER_GID "$(group_of "$DEV/kfd")"
      ;;
  esac
  [ "$1" = none ] || settle LLMSWAP_MEMORY "$(awk '/^MemTotal:/ { printf "%dm", $2 * 9 / 10 / 1024 }' "$MEMINFO")"
  for override in docker-compose.override.yml docker-compose.override.yaml compose.override.yml compose.override.yaml; do
    [ ! -e "$override" ] || files+=:$override   # compose reads these by itself only where COMPOSE_FILE is not set
  done
  settle COMPOSE_FILE "$files"
  # Who may read the engine's socket: for profile logs and for models that are containers.
  [ ! -S "$SOCKET" ] || settle DOCKER_GID "$(group_of "$SOCKET")"
}

# What docker compose goes by: the environment before .env.
compose_files() { say "${COMPOSE_FILE-$(sed -nE 's/^[[:space:]]*(export[[:space:]]+)?COMPOSE_FILE[[:space:]]*=//p' .env | tail -n 1)}"; }

note_unused_gpu() { # note_unused_gpu GPU FILES
  case $1:$2 in
    nvidia:*compose.gpu.yml* | amd:*compose.amd.yml* | none:*) ;;
    nvidia:*) say "note: there is an NVIDIA GPU, but COMPOSE_FILE ($2) leaves deploy/compose.gpu.yml out" ;;
    amd:*) say "note: there is an AMD GPU, but COMPOSE_FILE ($2) leaves deploy/compose.amd.yml out" ;;
  esac
}

keep_password() { # a copy for you alone; Grafana's own lies beside its database
  ( umask 077
    mkdir -p "$(dirname "$PASSWORD")"
    docker compose exec -T grafana cat /var/lib/grafana/admin_password >"$PASSWORD.new"
    mv "$PASSWORD.new" "$PASSWORD" )
}

main() {
  local found
  need_docker
  need_readable
  found=$(gpu)
  if [ "$found" = nvidia ] && ! can_hand_out_nvidia; then
    say "note: there is an NVIDIA GPU, but Docker cannot hand it out: going on without. Install the NVIDIA Container Toolkit,"
    say "      take COMPOSE_FILE out of .env, and make up again."
    found=none
  fi
  write_env "$found"
  note_unused_gpu "$found" "$(compose_files)"
  docker compose up --detach --wait --wait-timeout 300 "$@" || {
    docker compose ps --all --format 'table {{.Service}}\t{{.Status}}' >&2 || true
    die "not everything came up; docker compose logs SERVICE says why"
  }
  keep_password
  say "llmswap   http://$(docker compose port llmswap 8080)/v1   for OpenAI clients; without /v1 for Anthropic's"
  say "Grafana   http://$(docker compose port grafana 3000)      user admin, password in $PASSWORD"
}

main "$@"
