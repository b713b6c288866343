-- For wrk: asks for 64 files of 1 kB in turn, so that the connections are spread over the backends,
-- and prints one row of load-test.sh's table.

local turn = 0

function request()
    turn = turn % 64 + 1
    return wrk.format("GET", "/small/" .. turn)
end

function done(summary, latency)
    local seconds = summary.duration / 1e6
    local errors = summary.errors
    io.write(string.format("row %.0f %.1f %.1f %d\n",
        summary.requests / seconds,
        latency:percentile(50) / 1e3,
        latency:percentile(99) / 1e3,
        errors.connect + errors.read + errors.write + errors.timeout + errors.status))
end
