# frozen_string_literal: true

require "bundler"
Bundler.require(:default, :test)
require "minitest/autorun"
require_relative "../lib/guestbook/app"

class GuestbookTest < Minitest::Test
  include Rack::Test::Methods

  def app = Guestbook::App

  def test_local_time
    get "/entries/1?tz=Asia/Tokyo"
    assert_equal "2024-03-31 09:30 JST", JSON.parse(last_response.body)["local"]
  end

  def test_code
    get "/entries/1/code.svg"
    assert_includes last_response.body, "<svg"
  end
end
