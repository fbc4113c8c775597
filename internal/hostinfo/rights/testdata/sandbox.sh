#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Runs a command as deploy/systemd/bpfwhy.service does, with the tools of util-linux: sandbox.sh CAPABILITIES COMMAND...
# where capabilities are as setpriv has them: +sys_admin,+syslog.
set -eu
if [ "${SANDBOX:-}" = "" ]; then
	exec env SANDBOX=1 unshare --mount --propagation private sh "$0" "$@"
fi
caps=$1
shift
# ProtectSystem, ProtectHome, ProtectKernelTunables, ProtectControlGroups: all that is mounted is read-only.
while read -r _ _ _ _ at _; do
	case $at in
	/dev | /dev/*) ;;
	/proc | /) mount -o remount,bind,ro "$at" ;;
	*) mount -o remount,bind,ro "$at" 2>/dev/null || : ;;
	esac
done </proc/self/mountinfo
mount -t tmpfs tmp /tmp # PrivateTmp
exec setpriv --bounding-set="-all,$caps" --inh-caps=-all --no-new-privs "$@"
