# frozen_string_literal: true

require "bundler"
Bundler.require(:default)
require_relative "lib/guestbook/app"

run Guestbook::App
