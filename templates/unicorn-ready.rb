
# From here on: how the run script learns what happens in here. It checks what it is told.
runsmith_tell = lambda do |line|
  path = ENV["RUNSMITH_READY"].to_s
  if path.empty?
    # Started by something else.
  elsif File.pipe?(path)
    File.open(path, IO::WRONLY | IO::NONBLOCK) { |fifo| fifo.write_nonblock(line) }
  elsif File.socket?(path)
    require "socket"
    datagram = Socket.new(:UNIX, :DGRAM)
    begin
      datagram.connect_nonblock(Socket.sockaddr_un(path))
      # Where many workers speak at once, each waits for a moment.
      until datagram.sendmsg_nonblock(line, exception: false) == line.bytesize
        IO.select(nil, [datagram], nil, 5) or raise "it does not listen"
      end
    ensure
      datagram.close
    end
  end
end

after_worker_ready do |server, worker|
  server.logger.info("worker=#{worker.nr} ready")
  begin
    runsmith_tell.call("ready #{Process.ppid} #{Process.pid} #{server.worker_processes}\n")
  rescue StandardError => problem
    server.logger.warn("the run script does not know that worker=#{worker.nr} is ready: #{problem.message}")
  end
end

# In the master: a worker has exited.
after_worker_exit do |server, worker, status|
  line = "reaped #{status.inspect} worker=#{worker.nr rescue "unknown"}"
  status.success? ? server.logger.info(line) : server.logger.error(line)
  begin
    path = ENV["RUNSMITH_READY"].to_s
    runsmith_tell.call("gone #{Process.pid} #{status.pid}\n") if File.socket?(path)
  rescue StandardError => problem
    server.logger.debug("the runtime does not know that a worker has exited: #{problem.message}")
  end
end
{% if not inherits_sockets %}

# In the process that is about to become the new master.
before_exec do |server|
  begin
    runsmith_tell.call("successor #{Process.ppid} #{Process.pid}\n")
  rescue StandardError => problem
    server.logger.warn("the run script does not know of the new master: #{problem.message}")
  end
end
{% endif %}
