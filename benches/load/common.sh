# Read by the scripts beside it, each of which has set `install`: what brings its tool.
# Sets: encoding, seconds, connections, url, tool, body (a file), content_type, guard.

name=${0##*/}
here=${0%/*}

refuse() {
    printf '%s: %s\n' "$name" "$1" >&2
    exit 2
}

usage="usage: $name [urlencoded|multipart] [seconds] [connections] [url]${more_usage:-}"
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

case $encoding in
urlencoded) content_type=application/x-www-form-urlencoded ;;
multipart) content_type='multipart/form-data; boundary=------------------------d74496d66958873e' ;;
*) refuse "'$encoding' is no encoding; $usage" ;;
esac
body=$here/$encoding.body

tool=$(PATH=$PATH:$here/../../target/load/bin command -v "$name") ||
    refuse "$name is neither on the PATH nor in target/load/bin: $install"

# Every tool stops by itself; this is for a server that does not answer.
guard="timeout -k 5 $((seconds + 15))"
