
# From here on: how the run script learns that a worker has loaded the application. It checks what it is told.
after_worker_ready do |server, worker|
  server.logger.info("worker=#{worker.nr} ready")
  begin
    path = ENV["RUNSMITH_READY"].to_s
    line = "ready #{Process.ppid} #{Process.pid} #{server.worker_processes}\n"
    if path.empty?
      # Started by something else.
    elsif File.pipe?(path)
      File.open(path, IO::WRONLY | IO::NONBLOCK) { |fifo| fifo.write_nonblock(line) }
    elsif File.socket?(path)
      require "socket"
      datagram = Socket.new(:UNIX, :DGRAM)
      begin
        datagram.connect_nonblock(Socket.sockaddr_un(path))
        datagram.sendmsg_nonblock(line)
      ensure
        datagram.close
      end
    end
  rescue StandardError => problem
    server.logger.warn("the run script does not know that worker=#{worker.nr} is ready: #{problem.message}")
  end
end
