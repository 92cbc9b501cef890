package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/credentials"
	"github.com/docker/cli/cli/config/types"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// Keychain finds credentials where docker, podman and crane keep them, in their files and with their helpers:
// REGISTRY_AUTH_FILE, DOCKER_AUTH_CONFIG, docker's config.json (in DOCKER_CONFIG or ~/.docker), and podman's auth.json (below
// XDG_RUNTIME_DIR, /run and XDG_CONFIG_HOME). The first that has some for the registry counts: a file that tells of other
// registries only hides no other, which it does in the library's own (authn.DefaultKeychain). Within a file, what is kept for a
// repository or a part of its path comes before what is kept for the host, as podman has it (containers-auth.json(5)).
var Keychain authn.Keychain = keychain{}

type keychain struct{}

func (k keychain) Resolve(of authn.Resource) (authn.Authenticator, error) {
	return k.ResolveContext(context.Background(), of)
}

// ResolveContext finds nothing where there is nothing: the registry is asked without an account. What cannot be read or asked
// is an error only where nothing else has credentials.
func (keychain) ResolveContext(_ context.Context, of authn.Resource) (authn.Authenticator, error) {
	var failures []error
	for _, path := range accounts() {
		found, err := kept(path, of)
		switch {
		case err != nil:
			failures = append(failures, fmt.Errorf("%s: %w", path, err))
		case found != types.AuthConfig{}:
			return authn.FromConfig(authn.AuthConfig{Username: found.Username, Password: found.Password, Auth: found.Auth, IdentityToken: found.IdentityToken, RegistryToken: found.RegistryToken}), nil
		}
	}
	if len(failures) > 0 {
		return nil, event.WithRemedy(fmt.Errorf("credentials for %s: %w", of.RegistryStr(), errors.Join(failures...)), "mend that file, or log in: docker login %s (or podman login)", of.RegistryStr())
	}
	return authn.Anonymous, nil
}

// environment stands for DOCKER_AUTH_CONFIG among the files.
const environment = "DOCKER_AUTH_CONFIG"

// accounts are the files that may hold credentials, in the order in which they count: what somebody named for this call,
// docker's, podman's.
func accounts() (paths []string) {
	if p := os.Getenv("REGISTRY_AUTH_FILE"); p != "" {
		paths = append(paths, p)
	}
	if os.Getenv(environment) != "" {
		paths = append(paths, environment)
	}
	home, _ := os.UserHomeDir() // without one, what is in it is not looked for
	below := func(dir string, parts ...string) {
		if dir != "" {
			paths = append(paths, filepath.Join(append([]string{dir}, parts...)...))
		}
	}
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		below(dir, config.ConfigFileName)
	} else {
		below(home, ".docker", config.ConfigFileName)
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		below(dir, "containers", "auth.json")
	} else {
		below("/run/containers", strconv.Itoa(os.Getuid()), "auth.json")
	}
	if dir := os.Getenv("XDG_CONFIG_HOME"); dir != "" {
		below(dir, "containers", "auth.json")
	} else {
		below(home, ".config", "containers", "auth.json")
	}
	return paths
}

// kept reads what a file, or a helper that it names, has for a registry or a repository of it; nothing if that is nothing.
func kept(path string, of authn.Resource) (found types.AuthConfig, err error) {
	file := configfile.New(path)
	if path != environment {
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			return found, nil
		}
		if err != nil {
			return found, err
		}
		defer f.Close()
		if file, err = config.LoadFromReader(f); err != nil {
			return found, err
		}
	}
	host := of.RegistryStr()
	hosts := []string{host}
	if host == name.DefaultRegistry { // as docker, and as podman calls it
		hosts = []string{authn.DefaultAuthKey, "docker.io", host}
	}
	var names []string // HOST/A/B, HOST/A
	for rest := of.String(); strings.Contains(rest, "/"); rest = rest[:strings.LastIndexByte(rest, '/')] {
		names = append(names, rest)
		if path, ok := strings.CutPrefix(rest, name.DefaultRegistry+"/"); ok {
			names = append(names, "docker.io/"+path)
		}
	}
	// The library takes what is kept for a path of a host for the host's.
	for key := range file.AuthConfigs {
		if rest, ok := strings.CutPrefix(key, credentials.ConvertToHostname(key)+"/"); ok && rest != "" && !slices.Contains(names, key) && rest != "v1/" && rest != "v2/" {
			delete(file.AuthConfigs, key)
		}
	}
	for _, key := range append(names, hosts...) {
		plain, mentioned := file.AuthConfigs[key]
		_, helped := file.CredentialHelpers[key]
		switch {
		case mentioned && !helped && file.CredentialsStore == "":
			found = plain
		case !mentioned && !helped && !slices.Contains(hosts, key):
			continue // helpers are programs: they are not asked for every part of a path
		default:
			if found, err = file.GetAuthConfig(key); err != nil {
				return types.AuthConfig{}, err
			}
		}
		// The library always names the server.
		if found.ServerAddress = ""; found != (types.AuthConfig{}) {
			return found, nil
		}
	}
	return found, nil
}
