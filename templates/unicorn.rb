# -*- coding: utf-8 -*-
# {{ managed | comment }}
# Edits are overwritten.
{% if settings.worker_processes is undefined %}
require "etc"
{% endif %}

{% if inherits_sockets %}
# A generation stays in the release that it was started in, whatever the link leads to by then.
working_directory ENV["RUNSMITH_RELEASE"] || {{ paths.current }}
{% else %}
# The first master stays in the release that RUNSMITH_RELEASE names. A successor, which inherits UNICORN_FD, takes what the link leads to.
working_directory ENV["UNICORN_FD"] ? {{ paths.current }} : ENV["RUNSMITH_RELEASE"] || {{ paths.current }}
{% endif %}
{% for socket in service.bind %}
listen {{ socket.address }}, backlog: {{ socket.backlog }}{% if socket.umask is not none %}, umask: 0{{ socket.umask | safe }}{% endif %}

{% endfor %}
{% if inherits_sockets %}
# The runtime asks this generation alone for its health by a socket of its own.
listen ENV["RUNSMITH_PROBE"] if ENV["RUNSMITH_PROBE"]
{% else %}
pid {{ paths.pidfile }}
{% endif %}
{% if settings.worker_processes is undefined %}
worker_processes Etc.nprocessors * 2 + 1
{% endif %}
{% for name, value in settings | items %}
{{ name | safe }} {{ value }}
{% endfor %}

{% include "unicorn-ready.rb" %}
