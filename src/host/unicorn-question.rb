# Asked by `runsmith validate --host`, as the application's user. Arguments: a mark for the line of
# the answer.
require "json"
answer = { version: "", settings: [], worker_class: nil, error: nil }
begin
  require "unicorn"
  answer[:version] = Unicorn::Const::UNICORN_VERSION.to_s
  answer[:settings] = Unicorn::Configurator.public_instance_methods(false).map(&:to_s)
rescue Exception => problem
  answer[:error] = "#{problem.class}: #{problem.message}"
end
puts "\n" + ARGV[0] + JSON.generate(answer)
