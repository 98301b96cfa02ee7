#!/bin/sh
# Ask for a run with curl and jq, and cut only where the answer says so.
#
#     sh curl_jq.sh http://127.0.0.1:8080 ../requests/saw_green.json cut-this
#
# The last words are the program that cuts: it is started with the run_id, and only where
# `may_cut` is true. Exit status: that of the program; 4 the machine must not cut, 6 nobody
# answered in time: send the same request again; a duplicate is success. A token, where the API
# asks for one, is taken from the environment: RUNS_TOKEN.
set -eu
api=$1 request=$2
shift 2

if ! answer=$(curl --silent --show-error --max-time 60 --header 'Content-Type: application/json' \
    ${RUNS_TOKEN:+--header "Authorization: Bearer $RUNS_TOKEN"} \
    --data-binary "@$request" "$api/api/rmos/runs"); then
    echo "The API at $api does not answer: send the same request again." >&2
    exit 6
fi

# --ascii-output: what a producer wrote must not act on this terminal.
if ! printf '%s' "$answer" | jq --ascii-output --compact-output \
    '{run_id, outcome, status, may_cut, error, message} | del(..|nulls)'; then
    echo "The answer of $api is no JSON: is this the API?" >&2
    exit 6
fi
if printf '%s' "$answer" | jq --exit-status '.may_cut == true' >/dev/null; then
    exec "$@" "$(printf '%s' "$answer" | jq --raw-output .run_id)"
fi
case $(printf '%s' "$answer" | jq --raw-output '.error // .status') in
ACCEPTED | BROKER_UNAVAILABLE | STORE_UNAVAILABLE | TOO_BUSY) exit 6 ;;
esac
exit 4
