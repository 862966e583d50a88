# Sourced by the scripts in this directory, each of which sets `install`, the command that installs
# its tool. Sets: encoding, seconds, connections, url, tool, body (a file), content_type, guard. The
# first line of output says what is measured.

name=${0##*/}
here=${0%/*}

refuse() {
    printf '%s: %s\n' "$name" "$1" >&2
    exit 2
}

usage="usage: $name [urlencoded|multipart${more_encodings:-}] [seconds] [connections] [url]${more_usage:-}"
encoding=${1:-urlencoded}
seconds=${2:-10}
connections=${3:-32}
url=${4:-http://127.0.0.1:8080/connect/token}

whole() {
    case $2 in
    '' | 0* | *[!0-9]*) refuse "$1 must be a whole number above 0, not '$2'; $usage" ;;
    esac
}
whole seconds "$seconds"
whole connections "$connections"
descriptors=$(ulimit -n)
if [ "$descriptors" != unlimited ] && [ $((connections + 32)) -gt "$descriptors" ]; then
    refuse "$connections connections need more than the $descriptors descriptors of this shell: run \
'ulimit -n $((connections + 32))' first, here and where the server starts"
fi

case $encoding in
urlencoded) content_type=application/x-www-form-urlencoded ;;
multipart) content_type='multipart/form-data; boundary=------------------------d74496d66958873e' ;;
assertion | dpop)
    case ${more_encodings:-} in
    *"|$encoding"*) ;;
    *) refuse "'$encoding' is for wrk; $usage" ;;
    esac
    content_type=application/x-www-form-urlencoded
    signed=${SIGNED:-$here/../../target/load/signed}
    [ -s "$signed/$encoding" ] ||
        refuse "$signed/$encoding is missing: cargo run --release --example signed -- $encoding"
    export SIGNED="$signed"
    ;;
*) refuse "'$encoding' is no encoding; $usage" ;;
esac
body=$here/$encoding.body

tool=$(PATH=$PATH:$here/../../target/load/bin command -v "$name") ||
    refuse "$name is neither on the PATH nor in target/load/bin: $install"

# Every tool stops by itself; this limit is for a server that does not answer.
guard="timeout -k 5 $((seconds + 15))"

# One request shows whether tokens are reused: such answers cost the server no signature. It uses
# the last of the signed lines, which the run leaves out.
case $encoding in
assertion) set -- -d "$(tail -n 1 "$signed/assertion")" ;;
dpop) set -- -d "@$here/urlencoded.body" -H "DPoP: $(tail -n 1 "$signed/dpop")" ;;
*) set -- --data-binary "@$body" ;;
esac
head=$(curl -s -m 10 -o /dev/null -D - -H "Content-Type: $content_type" "$@" "$url" | tr -d '\r') || head=
status=$(printf '%s\n' "$head" | awk '$1 ~ /^HTTP/ { status = $2 } END { print status }')
reuse=$(printf '%s\n' "$head" | awk 'tolower($1) == "x-token-reuse:" { print $2 }')
if [ "$status" != 200 ]; then
    measured="the first answer was ${status:-missing} and not a token: see the statuses below"
elif [ -n "$reuse" ]; then
    measured='with token_reuse: tokens are reused, and most answers cost no signature'
else
    measured='without token_reuse: every answer is a new token with its own signature'
fi
printf '%s: %s\n' "$name" "$measured"
