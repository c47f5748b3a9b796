local words = {}

--- Applies `change` to every word of `text`, leaving what is between them.
function words.map(text, change)
  return (text:gsub("%w+", change))
end

return words
