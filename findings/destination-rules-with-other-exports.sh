#!/bin/sh
# Istio: two DestinationRules of one host in one namespace, of which only the older says exportTo: ["."].
# Guess: they are merged, as rules of one host are, or the older one counts.
# Seen: they are not merged, and the younger one counts alone: clients of their namespace lose the older one's subsets.
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
metadata: {name: older, namespace: home, creationTimestamp: "2026-01-01T00:00:00Z"}
spec: {host: shop.example, subsets: [{name: old, labels: {version: v1}}]PLACE}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: younger, namespace: home, creationTimestamp: "2026-01-02T00:00:00Z"}
spec: {host: shop.example, subsets: [{name: new, labels: {version: v2}}]}
`

func TestFinding(t *testing.T) {
	for _, one := range []struct{ what, place, seen string }{
		{"neither says exportTo", "", "[old new]"}, // merged, so there is a difference to see
		{"the older is exported to its namespace", `, exportTo: ["."]`, "[new]"},
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
		proxy := istio.SetupProxy(&model.Proxy{ConfigNamespace: "home"})
		subsets := []string{}
		for _, cluster := range istio.Clusters(proxy) {
			if part := strings.Split(cluster.Name, "|"); len(part) == 4 && part[3] == "shop.example" && part[2] != "" {
				subsets = append(subsets, part[2])
			}
		}
		fmt.Println(one.what+": a client of their namespace knows the subsets", subsets)
		if fmt.Sprint(subsets) != one.seen {
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
