# shellcheck shell=bash
# A server's document root: random content, made once. The lab's servers share one; a Vagrant box has
# its own.

www_up() { # DIRECTORY
    local www=$1 number
    mkdir -p "$www/upload" "$www/demo" "$www/small"
    random_file "$www/1k" 1K
    random_file "$www/100k" 100K
    random_file "$www/1m" 1M
    random_file "$www/20m" 20M
    random_file "$www/100m" 100M
    # Many paths, so that both backends are chosen: to look at, and to measure with.
    for number in {1..12}; do
        echo "<h1>Page $number</h1>" >"$www/demo/page-$number.html"
    done
    for number in {1..64}; do
        random_file "$www/small/$number" 1K
    done
}

random_file() { # FILE SIZE
    local file=$1
    [[ ! -e $file ]] || return 0
    # Renamed when complete: an interrupted run must not leave half a file.
    head -c "$2" /dev/urandom >"$file.part"
    mv "$file.part" "$file"
}
