# frozen_string_literal: true

Gem::Specification.new do |spec|
  spec.name = "quickmark"
  spec.version = "1.0.2"
  spec.summary = "QR codes by libqrencode"
  spec.authors = ["Guest book"]
  spec.license = "MIT"
  spec.required_ruby_version = ">= 3.0"
  spec.files = Dir["lib/**/*.rb", "ext/**/*.{c,rb}"]
  spec.extensions = ["ext/quickmark/extconf.rb"]
end
