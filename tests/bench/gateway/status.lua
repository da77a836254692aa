-- Asks for the status of one job after the other; ids and path come from the environment of wrk.
local ids = {}
for id in string.gmatch(os.getenv("BENCH_IDS"), "%S+") do ids[#ids + 1] = id end
local before, after = os.getenv("BENCH_PATH"):match("^(.-){id}(.*)$")
local next_id = 0
request = function()
  next_id = next_id % #ids + 1
  return wrk.format("GET", before .. ids[next_id] .. after)
end
