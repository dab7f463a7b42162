#!/bin/sh
# Istio: a DestinationRule with a workloadSelector beside one for all clients of their namespace (exportTo: ["."]), of one host.
# Guess: the first applies only to workloads with its labels, as its API says, and other clients keep the subsets of the second.
# Seen: the first takes over the subsets of the second, and clients without its labels have none.
# Needs Go. Exits with 0 as long as it is as seen, with 1 when that changes, and with 2 where it cannot be tried.
set -eu
VERSION=v0.0.0-20260827124520-eed52ebb66ad
grep -E '^# (Guess|Seen)' "$0"
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT && cd "$folder"
export CGO_ENABLED=0 GOFLAGS="-buildvcs=false -trimpath -mod=mod -p=1"
go mod download -json "istio.io/istio@$VERSION" >found || { cat found; exit 2; }
sources=$(sed -n 's/.*"Dir": "\(.*\)".*/\1/p' found)
install -m 600 "$sources/go.mod" "$sources/go.sum" . # the versions that it pins itself
go mod edit -module=finding -require="istio.io/istio@$VERSION"
cat >finding_test.go <<'GO'
package finding

import (
	"fmt"
	"strings"
	"testing"

	"istio.io/istio/pilot/pkg/config/kube/crd"
	"istio.io/istio/pilot/pkg/model"
	"istio.io/istio/pilot/pkg/networking/core"
	"istio.io/istio/pkg/config/schema/collections"
)

const given = `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: shop, namespace: home}
spec:
  {hosts: [shop.example], ports: [{number: 80, name: http, protocol: HTTP}], resolution: STATIC,
  endpoints: [{address: 192.0.2.1, labels: {version: v1}}, {address: 192.0.2.2, labels: {version: v2}}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: all, namespace: home}
spec: {host: shop.example, subsets: [{name: old, labels: {version: v1}}]PLACE}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: some, namespace: home}
spec: {host: shop.example, subsets: [{name: new, labels: {version: v2}}], workloadSelector: {matchLabels: {app: web}}}
`

func TestFinding(t *testing.T) {
	for _, one := range []struct{ what, place, seen string }{
		{"that for all does not say exportTo", "", "[old] [new]"}, // so there is a difference to see
		{"that for all is exported to its namespace", `, exportTo: ["."]`, "[] [new old]"},
	} {
		configs, _, err := crd.ParseInputs(strings.ReplaceAll(given, "PLACE", one.place))
		if err != nil {
			t.Fatal(err)
		}
		for _, config := range configs {
			schema, _ := collections.Pilot.FindByGroupVersionAliasesKind(config.GroupVersionKind)
			if warning, err := schema.ValidateConfig(config); warning != nil || err != nil {
				t.Fatal("not valid: ", config.Name, warning, err)
			}
		}
		istio := core.NewConfigGenTest(t, core.TestOptions{Configs: configs})
		known := []string{}
		for _, labels := range []map[string]string{{}, {"app": "web"}} {
			meta := &model.NodeMetadata{Namespace: "home", Labels: labels}
			proxy := istio.SetupProxy(&model.Proxy{ConfigNamespace: "home", Labels: labels, Metadata: meta})
			subsets := []string{}
			for _, cluster := range istio.Clusters(proxy) {
				if part := strings.Split(cluster.Name, "|"); len(part) == 4 && part[3] == "shop.example" && part[2] != "" {
					subsets = append(subsets, part[2])
				}
			}
			fmt.Println(one.what+": a client with", labels, "knows the subsets", subsets)
			known = append(known, fmt.Sprint(subsets))
		}
		if strings.Join(known, " ") != one.seen {
			t.Error("before it was", one.seen)
		}
	}
}
GO
echo "istio.io/istio $VERSION"
go test -c -o finding . >log 2>&1 || { cat log; exit 2; }
./finding -test.v >log 2>&1 && changed=0 || changed=1
grep -v '^[0-9]*-.*T.*Z	' log # without what Istio logs
exit $changed
