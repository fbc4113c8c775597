{{- define "bpfwhy.name" -}}{{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}{{- end }}
{{- define "bpfwhy.fullname" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}{{ include "bpfwhy.name" . }}{{ end }}
{{- end }}
{{- define "bpfwhy.sa" -}}{{ default (include "bpfwhy.fullname" .) .Values.serviceAccount.name }}{{- end }}
{{- define "bpfwhy.selector" -}}
app.kubernetes.io/name: {{ include "bpfwhy.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "bpfwhy.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{ include "bpfwhy.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}
{{- define "bpfwhy.image" -}}
{{ required "image.repository is not set: where did you push the image?" .Values.image.repository }}
{{- with .Values.image.digest }}@{{ . }}{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}
{{- /* Policies, and tokens that name their node: 1.30. Without them nothing is written but Events. */ -}}
{{- define "bpfwhy.policies" -}}
{{- if semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version }}true{{ end }}
{{- end }}
{{- define "bpfwhy.reports" -}}
{{- if and .Values.reports.enabled (include "bpfwhy.policies" .) }}true{{ end }}
{{- end }}
{{- define "bpfwhy.conditions" -}}
{{- if and .Values.nodeConditions.enabled (include "bpfwhy.policies" .) }}true{{ end }}
{{- end }}
{{- /* What the agents have rights for, and nothing else. */ -}}
{{- define "bpfwhy.uses" -}}
{{- $uses := list }}
{{- if .Values.events.enabled }}{{ $uses = append $uses "events" }}{{ end }}
{{- if include "bpfwhy.reports" . }}{{ $uses = append $uses "reports" }}{{ end }}
{{- if .Values.pods.enabled }}{{ $uses = append $uses "pods" }}{{ end }}
{{- if include "bpfwhy.conditions" . }}{{ $uses = append $uses "condition" }}{{ end }}
{{- join "," $uses }}
{{- end }}
{{- define "bpfwhy.agent" -}}
- name: agent
  expression: request.userInfo.username == "system:serviceaccount:{{ .Release.Namespace }}:{{ include "bpfwhy.sa" . }}"
{{- end }}
{{- define "bpfwhy.node" -}}
- name: node
  expression: >-
    "authentication.kubernetes.io/node-name" in request.userInfo.extra ?
    request.userInfo.extra["authentication.kubernetes.io/node-name"][0] : ""
{{- end }}
{{- define "bpfwhy.args" -}}
- serve
- --node=$(NODE_NAME)
- --state=/var/lib/bpfwhy
- --listen=:{{ .Values.metrics.port }}
- --kubernetes-use={{ include "bpfwhy.uses" . }}
{{- with .Values.otlp.endpoint }}
- --otlp={{ . }}
{{- end }}
{{- with .Values.extraArgs }}
{{ toYaml . }}
{{- end }}
{{- end }}
