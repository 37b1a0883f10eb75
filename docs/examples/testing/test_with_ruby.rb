# A Ruby program that fetches mail, tested with the server as a program of its own: ruby test_with_ruby.rb

require "json"
require "minitest/autorun"
require "net/pop"
require "timeout"
require "tmpdir"

# What is tested: it fetches everything, and removes it from the server.
def fetch_mail(port)
  Net::POP3.start("127.0.0.1", port, "user", "pass") do |pop|
    pop.mails.map { |mail| mail.pop.tap { mail.delete } }
  end
end

class FetchTest < Minitest::Test
  def setup
    @folder = Dir.mktmpdir
  end

  def teardown
    Process.kill("TERM", @server.pid)
    @server.close
    FileUtils.remove_entry(@folder)
  end

  # Start a server with one message: its port.
  def serve(message, faults: "")
    File.write("#{@folder}/message.eml", message)
    File.write("#{@folder}/faults.toml", faults)
    @server = IO.popen(["twistd", "-n", "--pidfile=", "pop3toy", "--port", "0", "--message", "message.eml",
                        "--faults", "faults.toml", "--transcript", "off", "--transcript-json", "said.jsonl",
                        err: [:child, :out], chdir: @folder])
    line = @server.find { |one| one.include?("listens for POP3") } or flunk("the server has not started")
    Integer(line[/:(\d+)$/, 1])
  end

  # What the client has said, once its connection has ended: the server writes its transcript a moment later.
  def commands
    events = []
    Timeout.timeout(10) do
      until events.any? { |event| event["event"] == "Ended" }
        events = File.readlines("#{@folder}/said.jsonl").map { |line| JSON.parse(line) }
      end
    end
    events.filter_map { |event| event["line"].split.first if event["event"] == "LineReceived" }
  end

  def test_fetched_and_removed
    port = serve("Subject: one\n\n.hidden\n")
    assert_equal ["Subject: one\r\n\r\n.hidden\r\n"], fetch_mail(port)
    assert_equal %w[USER PASS LIST RETR DELE QUIT], commands - %w[CAPA STAT UIDL]
    assert_empty fetch_mail(port)
  end

  def test_broken_off
    port = serve("Subject: one\n\n1\n", faults: <<~TOML)
      [[fault]]
      kind = "drop"
      command = "RETR"
      octets = 30
      times = 1
    TOML
    assert_raises(EOFError) { fetch_mail(port) }
    refute_includes commands, "DELE", "what has not come in full must not be removed"
    assert_equal 1, fetch_mail(port).length
  end
end
