#!/bin/sh
# Istio: a WorkloadEntry whose spec.labels and metadata.labels differ.
# Guess: spec.labels are the labels of the endpoint, as its API says, and those of the object are for people and tools.
# Seen: both are joined, and where they differ those of the object count: the endpoint is of another version, or of no Service.
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
  {hosts: [shop.example], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS,
  workloadSelector: {labels: {app: shop}}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: one, namespace: homePLACE}
spec: {address: one.example, labels: {app: shop, version: v1}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: shop, namespace: home}
spec: {host: shop.example, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
`

func TestFinding(t *testing.T) {
	for _, one := range []struct{ place, seen string }{
		{"", "[:1 v1:1]"}, // so there is a difference to see
		{", labels: {version: v2}", "[:1 v2:1]"},
		{", labels: {app: other}", "[]"},
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
		found := map[string]int{} // endpoints by subset, and of the whole Service
		for _, cluster := range istio.Clusters(istio.SetupProxy(&model.Proxy{ConfigNamespace: "home"})) {
			if part := strings.Split(cluster.Name, "|"); len(part) == 4 && part[3] == "shop.example" {
				for _, place := range cluster.GetLoadAssignment().GetEndpoints() {
					found[part[2]] += len(place.LbEndpoints)
				}
			}
		}
		seen := strings.TrimPrefix(fmt.Sprint(found), "map")
		fmt.Printf("metadata: {name: one, namespace: home%s}: endpoints %s\n", one.place, seen)
		if seen != one.seen {
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
