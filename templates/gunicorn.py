# -*- coding: utf-8 -*-
# {{ managed | comment }}
# Edits are overwritten.
{% if settings.workers is undefined %}
import multiprocessing
{% endif %}

bind = {{ paths.binds }}
backlog = {{ settings.backlog if settings.backlog is defined else paths.backlog }}
{% set masks = service.bind | map(attribute="umask") | reject("none") | sort %}
umask = 0o{{ (masks | last if masks else "000") | safe }} # of Unix sockets only; the process has its own
{% if not inherits_sockets %}
pidfile = {{ paths.pidfile }}
{% endif %}
{% if settings.proc_name is undefined %}
proc_name = {{ service.application }}
{% endif %}
{% if settings.workers is undefined %}
workers = multiprocessing.cpu_count() * 2 + 1
{% endif %}
{% for name, value in settings | items %}
{% if name != "backlog" %}
{{ name | safe }} = {{ value }}
{% endif %}
{% endfor %}

{% include "gunicorn-ready.py" %}
