# shellcheck shell=bash disable=SC2154 # topology.sh assigns them
# The document root of both servers: random content, made once.

www_up() {
    local number
    mkdir -p "$lab/www/upload" "$lab/www/demo" "$lab/www/small"
    random_file 1k 1K
    random_file 100k 100K
    random_file 1m 1M
    random_file 20m 20M
    random_file 100m 100M
    # Many paths, so that both backends are chosen: to look at, and to measure with.
    for number in {1..12}; do
        echo "<h1>Page $number</h1>" >"$lab/www/demo/page-$number.html"
    done
    for number in {1..64}; do
        random_file "small/$number" 1K
    done
}

random_file() { # NAME SIZE
    local file=$lab/www/$1
    [[ ! -e $file ]] || return 0
    # Renamed when complete: an interrupted run must not leave half a file.
    head -c "$2" /dev/urandom >"$file.part"
    mv "$file.part" "$file"
}
