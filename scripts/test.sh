#!/usr/bin/env bash
# Everything that must hold, in order, to the end even if something fails; then one verdict and the exit status.
# Arguments go to pytest. Runs after scripts/setup.sh; `make test` does both.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
export PATH="$PWD/.venv/bin:$PATH"

bad=()
check() { # NAME COMMAND...
    local name=$1
    shift
    printf '\n== %s\n' "$name"
    "$@" || bad+=("$name")
}

check "ruff check" ruff check .
check "ruff format" ruff format --check .
check "mypy" python -m mypy
check "pytest" python -m pytest -n auto --no-loadscope-reorder --nbval --nbval-current-env --nbval-cell-timeout=60 \
    --durations=25 --continue-on-collection-errors tests notebooks "$@"

# What is promised must hold on RabbitMQ 4 as well: the tests of it once more, on a container, where there is a Docker engine.
promises=(
    tests/broker/test_{backoff,bad_input,chat,dead_letters,history,order,outbox,outcomes,pause,progress,quorum,quota,receipts,receiving,retry}.py
    tests/faults/test_{connection_loss,freeze,kill,process_death,promises,retry_under_kills,young_queues}.py
)
if [ $# = 0 ] && { [ -n "${CI:-}" ] || docker version >/dev/null 2>&1; }; then
    check "pytest, the promises on RabbitMQ 4" python -m pytest -n auto --no-loadscope-reorder --broker-kind docker --durations=10 "${promises[@]}"
fi

if [ "${#bad[@]}" = 0 ]; then
    printf '\nVERDICT: all good\n'
else
    printf '\nVERDICT: FAILED in:%s\n' "$(printf ' %s,' "${bad[@]}" | sed 's/,$//')"
    exit 1
fi
