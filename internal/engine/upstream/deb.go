package upstream

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/command"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/integrity"
)

// findDeb resolves a guest from a Debian-style archive (https://wiki.debian.org/DebianRepository/Format). apt itself
// fetches and verifies the indexes, with the pinned keys only, and chooses the packages, in a state folder of its own;
// nothing of the host's configuration, keys or installed packages takes part.
func findDeb(ctx context.Context, q Query, scope *event.Scope) (*Snapshot, error) {
	o := q.Flavor.Origin
	arch := o.ArchNames[q.Arch]
	ring, err := q.Ring.Keyring(q.Release.SignedBy)
	if err != nil {
		return nil, err
	}
	var sources strings.Builder
	originals := map[string]string{} // mirror's base → upstream's
	for _, a := range o.Archives {
		words := strings.Fields(strings.ReplaceAll(a, "{codename}", q.Release.Codename))
		base := strings.TrimRight(words[0], "/")
		from := strings.TrimRight(Apply(q.Mirrors, base), "/")
		originals[from] = base
		words[0] = from
		fmt.Fprintf(&sources, "deb [arch=%s signed-by={state}/keyring.gpg] %s\n", arch, strings.Join(words, " "))
	}
	id := sha256.Sum256([]byte(sources.String() + string(ring)))
	name := q.Flavor.ID + "-" + q.Release.Version + "-" + string(q.Arch) + "-" + hex.EncodeToString(id[:6])
	state := q.State(name)
	unlock, err := q.Lock(ctx, "upstream-"+name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if strings.ContainsAny(state, " \t\n\"[];") {
		return nil, event.WithRemedy(fmt.Errorf("apt cannot work in the folder %q: its name has characters that apt's files cannot hold", state), "choose another folder with --cache")
	}
	if err := prepareApt(state, arch, strings.ReplaceAll(sources.String(), "{state}", state), ring); err != nil {
		return nil, err
	}
	snap := &Snapshot{Roots: q.Roots()}
	memo := memory{State: state, Question: hash(sources.String(), string(ring), strings.Join(snap.Roots, " "), fmt.Sprint(q.Only != nil))}
	for _, line := range strings.Split(strings.TrimSpace(sources.String()), "\n") {
		words := strings.Fields(line)
		memo.Indexes = append(memo.Indexes, index{URL: words[3] + "/dists/" + words[4] + "/InRelease"})
	}
	if known := memo.recall(ctx, q); known != nil {
		scope.Logf("the %d signed indexes are those of the last time: nothing to read anew", len(memo.Indexes))
		return known, nil
	}
	env := []string{"APT_CONFIG=" + filepath.Join(state, "apt.conf")}
	if err := aptUpdate(ctx, env, o.Archives, scope); err != nil {
		return nil, err
	}
	if err := snap.indexes(state, q, &memo); err != nil {
		return nil, err
	}
	if u, ok := originals[urlBase(originals, snap.URL)]; ok {
		snap.URL = u + strings.TrimPrefix(snap.URL, urlBase(originals, snap.URL))
	}
	if err := snap.choose(ctx, env, arch, q.Only != nil, scope); err != nil {
		return nil, err
	}
	for i := range snap.Packages {
		p := &snap.Packages[i]
		base := urlBase(originals, p.From)
		p.URL = originals[base] + strings.TrimPrefix(p.From, base)
		snap.Size += p.Size
	}
	list := sha256.New()
	for _, p := range snap.Packages {
		fmt.Fprintf(list, "%s %s %s %s\n", p.Name, p.Version, p.Arch, p.SHA256)
	}
	snap.Checksum = "sha256:" + hex.EncodeToString(list.Sum(nil))
	return snap, memo.keep(snap)
}

// prepareApt lays out a state folder for apt.
func prepareApt(state, arch, sources string, ring []byte) error {
	for _, dir := range []string{"lists/partial", "cache/archives/partial", "etc/apt.conf.d", "etc/preferences.d"} {
		if err := os.MkdirAll(filepath.Join(state, dir), 0o755); err != nil {
			return err
		}
	}
	conf := fmt.Sprintf(`Dir "%[1]s";
Dir::State "%[1]s";
Dir::State::lists "lists";
Dir::State::status "%[1]s/status";
Dir::Cache "%[1]s/cache";
Dir::Etc "%[1]s/etc";
Dir::Etc::sourcelist "%[1]s/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Log "%[1]s";
APT::Architecture "%[2]s";
APT::Architectures { "%[2]s"; };
APT::Install-Recommends "false";
APT::Sandbox::User "";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
`, state, arch)
	files := map[string][]byte{"apt.conf": []byte(conf), "sources.list": []byte(sources), "keyring.gpg": ring, "status": nil}
	for name, data := range files {
		path := filepath.Join(state, name)
		if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
			continue
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// aptUpdate fetches the indexes anew where they have changed, and turns apt's words into sentences.
func aptUpdate(ctx context.Context, env, archives []string, scope *event.Scope) error {
	var said []string
	err := command.Run(ctx, command.Command{Name: "apt-get", Args: []string{"-q", "update"}, Env: env, Each: func(line string) {
		if strings.HasPrefix(line, "E: ") || strings.HasPrefix(line, "W: ") {
			said = append(said, strings.TrimSpace(line[3:]))
		}
	}}, scope)
	var failed *command.Failed
	if err == nil || ctx.Err() != nil || !errors.As(err, &failed) || len(said) == 0 {
		return err
	}
	all := strings.Join(said, "; ")
	base := strings.Fields(archives[0])[0]
	switch {
	case strings.Contains(all, "NO_PUBKEY"), strings.Contains(all, "not signed"), strings.Contains(all, "BADSIG"), strings.Contains(all, "EXPKEYSIG"),
		strings.Contains(all, "invalid signature"), strings.Contains(all, "couldn't be verified"):
		return event.WithRemedy(fmt.Errorf("the signature of the archive's index was not accepted: %s", all),
			"compare the keys it names with signed_by of the release in distros.toml; nothing was fetched or built")
	case strings.Contains(all, "resolve"), strings.Contains(all, "Could not connect"), strings.Contains(all, "Cannot initiate"), strings.Contains(all, "Connection"),
		strings.Contains(all, "unreachable"):
		return event.WithRemedy(fmt.Errorf("the archive cannot be reached: %s", all),
			"check the network and that %s answers, or name a mirror with --mirror FROM=TO", base)
	case strings.Contains(all, "No space left"):
		return event.WithRemedy(fmt.Errorf("the disk is full: %s", all), "free space there, or choose another folder with --cache")
	case strings.Contains(all, "is not valid yet"), strings.Contains(all, "is expired"):
		return event.WithRemedy(fmt.Errorf("the archive's index is not of this time: %s", all), "check this machine's clock, or that the mirror is kept up to date")
	}
	return event.WithRemedy(fmt.Errorf("the archive's indexes cannot be read: %s", all), "check that %s, or the mirror named for it, holds the release", base)
}

// indexes reads the signed indexes that apt accepted: who signed them, and when they were made.
func (s *Snapshot) indexes(state string, q Query, memo *memory) error {
	uris, err := filepath.Glob(filepath.Join(state, "lists", "*InRelease"))
	if err != nil {
		return err
	}
	if len(uris) == 0 {
		return errors.New("the archive offers no clear-signed index (InRelease)")
	}
	sort.Slice(uris, func(i, j int) bool {
		return len(uris[i]) < len(uris[j]) || len(uris[i]) == len(uris[j]) && uris[i] < uris[j]
	})
	signers := map[string]bool{}
	version := ""
	for i, path := range uris {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		text, signer, err := q.Ring.Open(integrity.OpenPGP, data, q.Release.SignedBy, q.now())
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(path), err)
		}
		signers[signer] = true
		field := func(name string) string {
			m := regexp.MustCompile(`(?m)^` + name + `: *(.*?)\r?$`).FindSubmatch(text)
			if m == nil {
				return ""
			}
			return string(m[1])
		}
		date, err := time.Parse(time.RFC1123, field("Date"))
		if err != nil {
			return fmt.Errorf("the date of %s: %w", filepath.Base(path), err)
		}
		if until, err := time.Parse(time.RFC1123, field("Valid-Until")); err == nil && (memo.Until.IsZero() || until.Before(memo.Until)) {
			memo.Until = until
		}
		memo.sums = append(memo.sums, hash(string(data)))
		if date.After(s.Date) {
			s.Date = date.UTC()
		}
		if i == 0 {
			version = field("Version")
		}
	}
	s.Build = strings.Trim(version+"-"+s.Date.Format("20060102"), "-")
	list := make([]string, 0, len(signers))
	for f := range signers {
		list = append(list, f)
	}
	sort.Strings(list)
	s.Signature, s.Trust = "verified "+strings.Join(list, ", "), "indexes signed (openpgp)"
	// The first line of sources.list names the main archive.
	sources, err := os.ReadFile(filepath.Join(state, "sources.list"))
	if err != nil {
		return err
	}
	words := strings.Fields(strings.SplitN(string(sources), "\n", 2)[0])
	s.URL = words[3] + "/dists/" + words[4] + "/InRelease"
	return nil
}

var (
	// 'http://HOST/pool/…/NAME_VERSION_ARCH.deb' NAME_VERSION_ARCH.deb SIZE HASH
	uriLine = regexp.MustCompile(`^'([^']+)' (\S+)_(\S+)_(\S+)\.deb (\d+)`)
	sha     = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// choose asks apt which packages the roots amount to, and reads their records.
func (s *Snapshot) choose(ctx context.Context, env []string, arch string, only bool, scope *event.Scope) error {
	type located struct {
		url   string
		plain string // without percent encoding
		size  int64
	}
	where := map[string]located{}
	args := []string{"-qq", "-y", "--print-uris"}
	if only {
		args = append(append(args, "download"), s.Roots...)
	} else {
		// What every system of this kind has (as mmdebstrap's variant minbase understands it), and the roots.
		args = append(append(args, "install", "?essential", "?priority(required)", "apt"), s.Roots...)
	}
	out, err := command.Output(ctx, command.Command{Name: "apt-get", Args: args, Env: env}, 0, scope)
	if err != nil {
		return event.WithRemedy(fmt.Errorf("apt cannot choose the packages: %w", err), "check the package names in distros.toml")
	}
	ask := []string{"show", "--no-all-versions"}
	for _, line := range strings.Split(string(out), "\n") {
		m := uriLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		version, err := url.PathUnescape(m[3])
		if err != nil {
			return fmt.Errorf("apt printed %q", line)
		}
		size, _ := strconv.ParseInt(m[5], 10, 64)
		plain, err := url.PathUnescape(m[1])
		if err != nil {
			return fmt.Errorf("apt printed %q", line)
		}
		where[m[2]+" "+version] = located{m[1], plain, size}
		ask = append(ask, m[2]+"="+version)
	}
	if len(where) == 0 {
		return errors.New("apt chose no packages")
	}
	out, err = command.Output(ctx, command.Command{Name: "apt-cache", Args: ask, Env: env}, 0, scope)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, stanza := range strings.Split(strings.TrimSpace(string(out)), "\n\n") {
		f := fields(stanza)
		key := f["Package"] + " " + f["Version"]
		loc, ok := where[key]
		if !ok || seen[key] || !strings.HasSuffix(loc.plain, "/"+strings.TrimPrefix(f["Filename"], "./")) {
			continue
		}
		size, err := strconv.ParseInt(f["Size"], 10, 64)
		if err != nil || size != loc.size || !sha.MatchString(f["SHA256"]) {
			return fmt.Errorf("the index's record of %s %s has no valid SHA256 and Size", f["Package"], f["Version"])
		}
		seen[key] = true
		s.Packages = append(s.Packages, Package{Name: f["Package"], Version: f["Version"], Arch: f["Architecture"], From: loc.url, Size: size, SHA256: f["SHA256"], Stanza: stanza})
	}
	for key := range where {
		if !seen[key] {
			return fmt.Errorf("the index has no record of %s", key)
		}
	}
	sort.Slice(s.Packages, func(i, j int) bool { return s.Packages[i].Name < s.Packages[j].Name })
	return nil
}

// fields reads one record of deb822 form (deb-control(5)); continuation lines are left out.
func fields(stanza string) map[string]string {
	f := map[string]string{}
	sc := bufio.NewScanner(strings.NewReader(stanza))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		line := sc.Text()
		if line == "" || line[0] == ' ' || line[0] == '\t' {
			continue
		}
		if k, v, ok := strings.Cut(line, ":"); ok {
			f[k] = strings.TrimSpace(v)
		}
	}
	return f
}

// urlBase returns the base among known that url begins with.
func urlBase(known map[string]string, url string) string {
	best := ""
	for base := range known {
		if strings.HasPrefix(url, base+"/") && len(base) > len(best) {
			best = base
		}
	}
	return best
}
