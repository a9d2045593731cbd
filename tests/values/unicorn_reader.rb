# For each line of standard input, a JSON string with the path of a unicorn.rb, prints a JSON object:
# what unicorn's own Configurator keeps of it.
require "json"
require "unicorn"

def text(value)
  value.is_a?(String) ? value.dup.force_encoding("UTF-8") : value
end

# JSON is UTF-8 in every locale; what unicorn reads files in stays the locale's.
STDIN.set_encoding("UTF-8")
STDIN.each_line do |line|
  begin
    # A server process loads its configuration once; here, each load begins from the same.
    configurator = Unicorn::Configurator.new(config_file: JSON.parse(line))
    kept = configurator.set.select do |_, value|
      [NilClass, TrueClass, FalseClass, Integer, String].any? { |type| type === value }
    end
    answer = {
      "kept" => kept.to_h { |name, value| [name, text(value)] },
      "listeners" => configurator.set[:listeners].map { |address| text(address) },
      "current" => text(Unicorn::HttpServer::START_CTX[:cwd]),
    }
  rescue ScriptError, StandardError => problem
    answer = { "problem" => text(problem.full_message(highlight: false)).scrub }
  end
  puts JSON.generate(answer)
  STDOUT.flush
end
