-- For wrk: asks for 64 files of 1 kB in turn, so that they are spread over the backends, and prints
-- what it saw as one line of JSON. Without a balancer each thread has a server of its own, of those
-- that SERVERS names.

local threads = 0
local servers = {}
for host, port in (os.getenv("SERVERS") or ""):gmatch("(%S+):(%d+)") do
    servers[#servers + 1] = { host, port }
end

function setup(thread)
    if #servers > 0 then
        local server = servers[threads % #servers + 1]
        thread.addr = wrk.lookup(server[1], server[2])[1]
        threads = threads + 1
    end
end

local turn = 0

function request()
    turn = turn % 64 + 1
    return wrk.format("GET", "/small/" .. turn)
end

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format(
        'row {"requests": %d, "seconds": %f, "failed": %d, "p50": %f, "p99": %f, "p99.9": %f}\n',
        summary.requests,
        summary.duration / 1e6,
        errors.connect + errors.read + errors.write + errors.timeout + errors.status,
        latency:percentile(50) / 1e3,
        latency:percentile(99) / 1e3,
        latency:percentile(99.9) / 1e3))
end
