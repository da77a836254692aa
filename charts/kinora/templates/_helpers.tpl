{{- define "kinora.name" -}}
{{- printf "%s-operator" .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "kinora.selector" -}}
app.kubernetes.io/name: kinora
app.kubernetes.io/component: operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "kinora.labels" -}}
{{ include "kinora.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "kinora.serviceAccount" -}}
{{- default (include "kinora.name" .) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "kinora.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{- define "kinora.pullSecrets" -}}
{{- $names := list -}}
{{- range .Values.imagePullSecrets }}{{- $names = append $names .name -}}{{- end -}}
{{- join "," $names -}}
{{- end -}}

{{/* Helm reads numbers of a values file as floats: 1073741824 would become 1.073741824e+09. */}}
{{- define "kinora.stager" -}}
{{- $stager := deepCopy .Values.stager -}}
{{- $_ := set $stager.limits "maxBytes" (int64 $stager.limits.maxBytes) -}}
{{- $_ := set $stager "parallel" (int64 $stager.parallel) -}}
{{- $ports := list -}}
{{- range $stager.allow.ports }}{{- $ports = append $ports (int64 .) -}}{{- end -}}
{{- $_ := set $stager.allow "ports" $ports -}}
{{- $_ := set $stager "uploadSeconds" (int64 .Values.gateway.retention.uploadSeconds) -}}
{{- $_ := set $stager "artifactSeconds" (int64 .Values.gateway.retention.artifactSeconds) -}}
{{- $_ := set $stager "inputSeconds" (int64 $stager.inputSeconds) -}}
{{- toJson $stager -}}
{{- end -}}

{{- define "kinora.gateway.name" -}}
{{- printf "%s-gateway" .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "kinora.gateway.selector" -}}
app.kubernetes.io/name: kinora
app.kubernetes.io/component: gateway
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "kinora.gateway.labels" -}}
{{ include "kinora.gateway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* The port of an http:// or https:// URL. */}}
{{- define "kinora.urlPort" -}}
{{- $url := urlParse . -}}
{{- if regexMatch ":[0-9]+$" $url.host -}}{{ regexFind "[0-9]+$" $url.host }}
{{- else -}}{{ ternary "80" "443" (eq $url.scheme "http") }}{{- end -}}
{{- end -}}

{{- define "kinora.aliases" -}}
{{- $pairs := list -}}
{{- range $name, $model := .Values.modelAliases }}{{- $pairs = append $pairs (printf "%s=%s" $name $model) -}}{{- end -}}
{{- join "," $pairs -}}
{{- end -}}

{{/* What the process reads of the chart's values; whole numbers as such (see kinora.stager). */}}
{{- define "kinora.gateway.values" -}}
{{- $gateway := deepCopy .Values.gateway -}}
{{- $_ := set $gateway "maxBodyBytes" (int64 $gateway.maxBodyBytes) -}}
{{- $retention := dict -}}
{{- range $name, $value := $gateway.retention }}{{- $_ := set $retention $name (int64 $value) -}}{{- end -}}
{{- $limits := dict "submitsPerMinute" $gateway.accountLimits.submitsPerMinute -}}
{{- range $name, $value := omit $gateway.accountLimits "submitsPerMinute" }}{{- $_ := set $limits $name (int64 $value) -}}{{- end -}}
{{- $webhooks := omit $gateway.webhooks "secretNamespaces" -}}
{{- range $name := list "shards" "parallel" "perHost" }}{{- $_ := set $webhooks $name (int64 (get $webhooks $name)) -}}{{- end -}}
{{- $ports := list -}}
{{- range $webhooks.allow.ports }}{{- $ports = append $ports (int64 .) -}}{{- end -}}
{{- $_ := set $webhooks.allow "ports" $ports -}}
{{- $extend := $gateway.promptExtend -}}
{{- $file := ternary (printf "/kinora/prompt-extend/%s" $extend.secretKey) "" (ne $extend.secretName "") -}}
{{- $prompt := dict "url" $extend.url "model" $extend.model "keyFile" $file "timeoutSeconds" $extend.timeoutSeconds -}}
{{- dict "dialects" $gateway.dialects "publicUrl" $gateway.publicURL "keysSecret" $gateway.keysSecret "signingSecret" $gateway.signingSecret "maxBodyBytes" $gateway.maxBodyBytes "accountLimits" $limits "retention" $retention "promptExtend" $prompt "webhooks" $webhooks "live" (dict "enabled" $gateway.live.enabled) "drainSeconds" $gateway.drainSeconds | toJson -}}
{{- end -}}
