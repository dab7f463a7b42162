#!/bin/sh
# Kubernetes: a Deployment whose container has two ports of the same number and protocol, with other names (the API allows it).
# Guess: what can be created and updated can be applied (server-side apply), and if not, it is refused as invalid (422).
# Seen: it is created and updated, and its apply fails with an error that has no Status, so that a server answers 500.
# Needs Go. Exits with 0 as long as it is as seen, with 1 when that changes, and with 2 where it cannot be tried.
set -eu
VERSION=v0.36.3 # of Kubernetes 1.36.3; what applies is the code of its API server
grep -E '^# (Guess|Seen)' "$0"
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT && cd "$folder"
export CGO_ENABLED=0 GOFLAGS="-buildvcs=false -trimpath -mod=mod -p=1"
go mod download -json "k8s.io/client-go@$VERSION" >found || { cat found; exit 2; }
sources=$(sed -n 's/.*"Dir": "\(.*\)".*/\1/p' found)
install -m 600 "$sources/go.mod" "$sources/go.sum" . # the versions that it pins itself
go mod edit -module=finding -require="k8s.io/client-go@$VERSION"
cat >finding_test.go <<'GO'
package finding

import (
	"context"
	"fmt"
	"strings"
	"testing"

	apps "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"sigs.k8s.io/yaml"
)

const given = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: home}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web, ports: [{containerPort: 80, name: http}, {containerPort: PORT, name: web}]}]}
`

func TestFinding(t *testing.T) {
	for _, one := range []struct{ port, seen string }{
		{"81", ""}, // so there is a difference to see
		{"80", `duplicate entries for key [containerPort=80,protocol="TCP"]`},
	} {
		manifest := strings.ReplaceAll(given, "PORT", one.port)
		deployment := &apps.Deployment{}
		if err := yaml.UnmarshalStrict([]byte(manifest), deployment); err != nil {
			t.Fatal(err)
		}
		ctx, client := context.Background(), fake.NewClientset().AppsV1().Deployments("home")
		if _, err := client.Create(ctx, deployment, meta.CreateOptions{}); err != nil {
			t.Error("create: ", err)
		}
		if _, err := client.Update(ctx, deployment, meta.UpdateOptions{}); err != nil {
			t.Error("update: ", err)
		}
		force := meta.PatchOptions{FieldManager: "me", Force: new(true)}
		_, err := client.Patch(ctx, "web", types.ApplyPatchType, []byte(manifest), force)
		fmt.Printf("ports 80 and %s: created, updated, apply: %v\n", one.port, err)
		if (err == nil) != (one.seen == "") || err != nil && !strings.Contains(err.Error(), one.seen) {
			t.Error("before it was", one.seen)
		}
		if err != nil && errors.ReasonForError(err) != meta.StatusReasonUnknown {
			t.Error("before it had no reason, and now it has", errors.ReasonForError(err))
		}
	}
}
GO
echo "k8s.io/client-go $VERSION"
go test -c -o finding . >log 2>&1 || { cat log; exit 2; }
./finding -test.v >log 2>&1 && changed=0 || changed=1
cat log
exit $changed
