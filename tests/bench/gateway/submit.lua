-- Submits jobs, each with its own prompt.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local path, body, n = os.getenv("BENCH_PATH"), os.getenv("BENCH_BODY"), 0
request = function()
  n = n + 1
  return wrk.format("POST", path, nil, (body:gsub("NUMBER", n)))
end
