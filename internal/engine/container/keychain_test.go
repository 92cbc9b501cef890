package container

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// helperScript is a credential helper as docker starts it (docker-credential-helpers, credentials/credentials.go).
const helperScript = `#!/bin/sh
read -r server
case $server in
helped.example.org) echo '{"ServerURL":"'$server'","Username":"from","Secret":"helper"}' ;;
token.example.org) echo '{"ServerURL":"'$server'","Username":"<token>","Secret":"t"}' ;;
broken.example.org) echo 'the wallet is locked'; exit 1 ;;
*) echo 'credentials not found in native keychain'; exit 1 ;;
esac
`

// Credentials are found where docker, podman and crane keep them, and no file hides another.
func TestKeychain(t *testing.T) {
	auths := func(list ...string) string { // KEY=USER
		var entries []string
		for _, l := range list {
			key, user, _ := strings.Cut(l, "=")
			entries = append(entries, fmt.Sprintf(`%q:{"auth":%q}`, key, base64.StdEncoding.EncodeToString([]byte(user+":secret"))))
		}
		return `{"auths":{` + strings.Join(entries, ",") + `}}`
	}
	const docker, podman, settled = "home/.docker/config.json", "run/containers/auth.json", "home/.config/containers/auth.json"
	for what, c := range map[string]struct {
		files map[string]string
		env   map[string]string // $T is the test's folder
		of    string
		want  string // USER:PASSWORD, or what the error says
	}{
		"nothing":                           {nil, nil, "quay.io/a/b", ":"},
		"docker's":                          {map[string]string{docker: auths("quay.io=d")}, nil, "quay.io/a/b", "d:secret"},
		"podman's":                          {map[string]string{podman: auths("quay.io=p")}, nil, "quay.io/a/b", "p:secret"},
		"podman's that stay":                {map[string]string{settled: auths("quay.io=p")}, nil, "quay.io/a/b", "p:secret"},
		"elsewhere":                         {map[string]string{"x/containers/auth.json": auths("quay.io=x")}, map[string]string{"XDG_CONFIG_HOME": "$T/x"}, "quay.io/a/b", "x:secret"},
		"docker's elsewhere":                {map[string]string{"x/config.json": auths("quay.io=x"), docker: auths("quay.io=d")}, map[string]string{"DOCKER_CONFIG": "$T/x"}, "quay.io/a/b", "x:secret"},
		"docker's knows others only":        {map[string]string{docker: auths("ghcr.io=d"), podman: auths("quay.io=p")}, nil, "quay.io/a/b", "p:secret"},
		"docker's holds no accounts":        {map[string]string{docker: `{"credsStore":"","detachKeys":"ctrl-q"}`, settled: auths("quay.io=p")}, nil, "quay.io/a/b", "p:secret"},
		"named for this call":               {map[string]string{docker: auths("quay.io=d"), "here.json": auths("quay.io=h")}, map[string]string{"REGISTRY_AUTH_FILE": "$T/here.json"}, "quay.io/a/b", "h:secret"},
		"named, and it knows others only":   {map[string]string{docker: auths("quay.io=d"), "here.json": auths("ghcr.io=h")}, map[string]string{"REGISTRY_AUTH_FILE": "$T/here.json"}, "quay.io/a/b", "d:secret"},
		"in the environment":                {map[string]string{docker: auths("quay.io=d")}, map[string]string{"DOCKER_AUTH_CONFIG": auths("quay.io=e")}, "quay.io/a/b", "e:secret"},
		"in the environment, without files": {nil, map[string]string{"DOCKER_AUTH_CONFIG": auths("quay.io=e")}, "quay.io/a/b", "e:secret"},
		"for the repository":                {map[string]string{podman: auths("quay.io=all", "quay.io/a=team", "quay.io/a/b=this")}, nil, "quay.io/a/b", "this:secret"},
		"for a part of its path":            {map[string]string{podman: auths("quay.io=all", "quay.io/a=team", "quay.io/b=other")}, nil, "quay.io/a/b", "team:secret"},
		"for another path":                  {map[string]string{podman: auths("quay.io/b=other", "quay.io/ab=other")}, nil, "quay.io/a/b", ":"},
		"an old form":                       {map[string]string{docker: auths("https://quay.io/v1/=old")}, nil, "quay.io/a/b", "old:secret"},
		"a port":                            {map[string]string{docker: auths("127.0.0.1:5000=d", "127.0.0.1=x")}, nil, "127.0.0.1:5000/a", "d:secret"},
		"Docker Hub by docker":              {map[string]string{docker: auths("https://index.docker.io/v1/=hub")}, nil, "index.docker.io/library/a", "hub:secret"},
		"Docker Hub by podman":              {map[string]string{podman: auths("docker.io=hub")}, nil, "docker.io/library/a", "hub:secret"},
		"Docker Hub by podman, a part":      {map[string]string{podman: auths("docker.io=hub", "docker.io/library=part")}, nil, "docker.io/library/a", "part:secret"},
		"a helper of the registry":          {map[string]string{docker: `{"credHelpers":{"helped.example.org":"kmitest"}}`}, nil, "helped.example.org/a", "from:helper"},
		"a helper of all":                   {map[string]string{podman: `{"credsStore":"kmitest"}`}, nil, "helped.example.org/a", "from:helper"},
		"a helper that has a token":         {map[string]string{docker: `{"credsStore":"kmitest"}`}, nil, "token.example.org/a", "token t"},
		"a helper that has nothing":         {map[string]string{docker: `{"credsStore":"kmitest"}`, podman: auths("quay.io=p")}, nil, "quay.io/a/b", "p:secret"},
		"a helper that fails":               {map[string]string{docker: `{"credsStore":"kmitest"}`}, nil, "broken.example.org/a", "the wallet is locked"},
		"a helper that fails, and a file":   {map[string]string{docker: `{"credsStore":"kmitest"}`, podman: auths("broken.example.org=p")}, nil, "broken.example.org/a", "p:secret"},
		"a helper that is not there":        {map[string]string{docker: `{"credsStore":"nowhere"}`}, nil, "quay.io/a/b", "docker-credential-nowhere"},
		"a file that is none":               {map[string]string{docker: `{"auths":`}, nil, "quay.io/a/b", docker + ": "},
		"an account that is none":           {map[string]string{podman: `{"auths":{"quay.io":{"auth":"!"}}}`}, nil, "quay.io/a/b", podman + ": "},
		"a file that is none, and another":  {map[string]string{docker: `{"auths":`, podman: auths("quay.io=p")}, nil, "quay.io/a/b", "p:secret"},
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			for _, name := range []string{"DOCKER_CONFIG", "DOCKER_AUTH_CONFIG", "REGISTRY_AUTH_FILE", "XDG_CONFIG_HOME"} {
				t.Setenv(name, "")
			}
			t.Setenv("HOME", filepath.Join(dir, "home"))
			t.Setenv("XDG_RUNTIME_DIR", filepath.Join(dir, "run"))
			t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
			for name, value := range c.env {
				t.Setenv(name, strings.ReplaceAll(value, "$T", dir))
			}
			write := func(path, text string, mode os.FileMode) {
				t.Helper()
				path = filepath.Join(dir, path)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), mode); err != nil {
					t.Fatal(err)
				}
			}
			write("docker-credential-kmitest", helperScript, 0o700)
			for path, text := range c.files {
				write(path, text, 0o600)
			}
			repo, err := name.NewRepository(c.of)
			if err != nil {
				t.Fatal(err)
			}
			found, err := authn.Resolve(t.Context(), Keychain, repo)
			if err != nil {
				var r *event.Remedied
				if !strings.Contains(err.Error(), c.want) || !errors.As(err, &r) || !strings.Contains(r.Remedy, "login "+repo.RegistryStr()) {
					t.Errorf("%v, want %q", err, c.want)
				}
				return
			}
			a, err := found.Authorization()
			if err != nil {
				t.Fatal(err)
			}
			got := a.Username + ":" + a.Password
			if a.IdentityToken != "" {
				got = "token " + a.IdentityToken
			}
			if got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}
