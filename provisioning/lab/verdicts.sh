# shellcheck shell=bash
# What is shown, statement by statement, with ok or FAIL before each.

failures=0

if [[ -t 1 ]]; then
    bold=$'\e[1m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
else
    bold='' green='' red='' plain=''
fi

title() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }

verdict() { # STATEMENT COMMAND...: is the statement true?
    if "${@:2}"; then
        printf '  %sok%s   %s\n' "$green" "$plain" "$1"
    else
        printf '  %sFAIL%s %s\n' "$red" "$plain" "$1"
        failures=$((failures + 1))
    fi
}
