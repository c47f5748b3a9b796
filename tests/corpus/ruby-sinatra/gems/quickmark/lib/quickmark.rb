# frozen_string_literal: true

require "quickmark/quickmark"

# QR codes.
module Quickmark
  # The code of a text as an SVG image, one unit a module.
  def self.svg(text)
    rows = matrix(text)
    squares = rows.each_with_index.flat_map do |row, y|
      row.each_char.with_index.filter_map { |dark, x| "M#{x},#{y}h1v1h-1z" if dark == "1" }
    end
    %(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 #{rows.size} #{rows.size}"><path d="#{squares.join}"/></svg>)
  end
end
