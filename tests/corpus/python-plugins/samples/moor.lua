-- Which berth takes the ship?
local function berth(draught)
  for number, depth in ipairs({ 6.0, 6.5, 8.0 }) do
    if draught < depth then
      return number
    end
  end
  return nil
end

print(berth(5.9))
