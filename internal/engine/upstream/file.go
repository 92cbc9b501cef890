package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
	"github.com/ContainerCraft/kmi-tui/internal/engine/integrity"
)

// File is the file of an image or installer origin.
type File struct {
	Pack     string          // "", "gz", "xz", "bz2", "zst"
	Member   string          // glob of the file wanted of a tar archive; "": it is none
	Format   string          // what it is unpacked: "qcow2", "raw", "iso"
	Sums     []integrity.Sum // of the file as it is downloaded; all have to be right
	DiskSums []integrity.Sum // of what it unpacks to
	Seal     *Seal           // a signature that can only be verified with the file; nil: there is none
}

// Seal is a signature over a file.
type Seal struct {
	Kind      integrity.Kind
	Disk      bool     // it is over what the file unpacks to
	Signature []byte   // as upstream publishes it
	Keys      []string // fingerprints of those accepted
}

// findFile resolves an image or installer origin. With an error, the snapshot holds what was found until then, or is nil.
func findFile(ctx context.Context, q Query, scope *event.Scope) (*Snapshot, error) {
	o := q.Flavor.Origin
	known, err := q.known()
	if err != nil {
		return nil, err
	}
	found := match{values: known}
	for _, step := range o.Find {
		all, err := run(ctx, q.Web, step, found.values)
		if err != nil {
			return nil, err
		}
		if step.JSON != "" && len(all) > 1 && all[0].values["build"] == "" && step.Order != "date" {
			return nil, fmt.Errorf("%s: the jq program yields %d objects, and nothing says which is newest: let it yield one, or with build", step.JSON, len(all))
		}
		if all[0].date.IsZero() {
			all[0].date = found.date
		}
		found = all[0]
	}
	template := cmp.Or(o.URL, "{url}")
	address, err := expandURL(template, found.values)
	if err != nil {
		return nil, err
	}
	known = found.values.with(values{"url": address})
	snap := &Snapshot{URL: address, Signature: "not offered", File: &File{Pack: o.Pack, Member: o.Member, Format: o.Format}}
	snap.Size, _ = strconv.ParseInt(known["size"], 10, 64)
	p := proof{q: q, known: known, snap: snap}
	snap.Build = p.build()
	if err := p.collect(ctx, found); err != nil {
		return snap, err
	}
	if err := p.prove(); err != nil {
		return snap, err
	}
	// What only the checksum file tells is known now; where nothing does, the checksum tells builds apart.
	if snap.Build = p.build(); snap.Build == "" {
		snap.Build = q.Release.Version + "-" + snap.File.Sums[0].Hex[:12]
	}
	scope.Logf("%s: %s, %s", snap.URL, snap.Checksum, snap.Signature)
	return snap, nil
}

// known is what is known of a target before its upstream is asked.
func (q Query) known() (values, error) {
	v := values{}
	maps.Copy(v, q.Release.Known)
	v["version"], v["codename"], v["arch"] = q.Release.Version, q.Release.Codename, q.Flavor.Origin.ArchNames[q.Arch]
	if v["codename"] == "" {
		delete(v, "codename")
	}
	words := map[string]catalog.ByArch{}
	maps.Copy(words, q.Flavor.Origin.Words)
	maps.Copy(words, q.Release.Words)
	told := maps.Clone(v)
	for name, w := range words {
		text, ok := w.Get(q.Arch)
		if !ok {
			return nil, fmt.Errorf("words in distros.toml say nothing of %s for %s", name, q.Arch)
		}
		text, err := catalog.Expand(text, told)
		if err != nil {
			return nil, err
		}
		v[name] = text
	}
	return v, nil
}

// proof is what vouches for a file: checksums, and signatures over them or it.
type proof struct {
	q     Query
	known values
	snap  *Snapshot

	head, sums, signature *Document // nil: not asked for
	missing               error     // of the signature
}

// build is what upstream calls the build; "" while that is not known.
func (p *proof) build() string {
	name, err := catalog.Expand(cmp.Or(p.q.Flavor.Origin.Build, "{build}"), p.known)
	if err != nil {
		return ""
	}
	return event.Clean(name)
}

// collect reads everything that vouches for the file, at once.
func (p *proof) collect(ctx context.Context, found match) error {
	o := p.q.Flavor.Origin
	group, ctx := errgroup.WithContext(ctx)
	if p.snap.Date = found.when(); p.snap.Size == 0 || p.snap.Date.IsZero() {
		group.Go(func() (err error) {
			p.head, err = p.q.Web.Head(ctx, p.snap.URL)
			var status *Status
			if errors.As(err, &status) && (status.Code == http.StatusNotFound || status.Code == http.StatusGone) {
				return fmt.Errorf("upstream names %s and does not have it: %w", baseName(p.snap.URL), err)
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return nil // then its size is not known: some servers do not tell
		})
	}
	if o.Checksum != nil {
		address, err := expandURL(o.Checksum.URL, p.known)
		if err != nil {
			return err
		}
		p.known["checksum"] = address
		group.Go(func() (err error) {
			p.sums, err = p.q.Web.Get(ctx, address)
			return err
		})
	}
	if s := o.Signature; s != nil && s.URL != "" && !p.q.Dry {
		address, err := expandURL(s.URL, p.known)
		if err != nil {
			return err
		}
		group.Go(func() (err error) {
			p.signature, err = p.q.Web.Get(ctx, address)
			var status *Status
			if errors.As(err, &status) && status.Code < 500 && status.Code != http.StatusTooManyRequests {
				p.missing = err
				return nil
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if p.head != nil {
		if p.snap.Size == 0 {
			p.snap.Size = max(0, p.head.Size)
		}
		if p.snap.Date.IsZero() {
			p.snap.Date = p.head.Modified
		}
	}
	if p.snap.Date.IsZero() && p.sums != nil {
		p.snap.Date = p.sums.Modified
	}
	return nil
}

// prove verifies what can be verified without the file, and fails closed.
func (p *proof) prove() error {
	o := p.q.Flavor.Origin
	text := []byte(nil)
	if p.sums != nil {
		text = p.sums.Body
	}
	p.snap.Trust = "not verified"
	if o.Signature == nil {
		p.snap.Trust = "checksum over TLS only: " + o.Unsigned
	}
	if s := o.Signature; s != nil && !p.q.Dry {
		keys := p.q.Release.SignedBy
		if len(keys) == 0 {
			keys = s.Keys
		}
		if len(keys) == 0 {
			p.snap.Signature = "bad: no key is pinned for this release"
			return event.WithRemedy(fmt.Errorf("the signature cannot be verified: no key is pinned for %s:%s", p.q.Flavor.ID, p.q.Release.Version),
				"name the fingerprint in signed_by of a [[flavor.release]] with this version, and add the key to internal/engine/integrity/keys with its source")
		}
		if p.missing != nil {
			p.snap.Signature = "missing"
			return fmt.Errorf("the signature is missing: %w", p.missing)
		}
		kind := integrity.Kind(s.Kind)
		var signer string
		var err error
		switch {
		case s.Of == "file" || s.Of == "disk":
			p.snap.File.Seal = &Seal{Kind: kind, Disk: s.Of == "disk", Signature: p.signature.Body, Keys: keys}
			// Whose it is can be told now; whether it is right, when the file is there.
			stream, err := p.q.Ring.Stream(kind, p.signature.Body, keys, p.q.now())
			if err != nil {
				return p.bad(p.signature.URL, err)
			}
			stream.Abort()
			p.snap.Signature = "over the " + s.Of + " by " + strings.Join(keys, " or ") + ": verified when it is fetched"
			p.snap.Trust = s.Of + " signed (" + s.Kind + ")"
		case s.URL == "":
			if text, signer, err = p.q.Ring.Open(kind, p.sums.Body, keys, p.q.now()); err != nil {
				return p.bad(p.sums.URL, err)
			}
		default:
			if signer, err = p.q.Ring.Verify(kind, p.signature.Body, p.sums.Body, keys, p.q.now()); err != nil {
				return p.bad(p.signature.URL, err)
			}
		}
		if signer != "" {
			p.snap.Signature = "verified " + signer
			p.snap.Trust = "checksum signed (" + s.Kind + ")"
		}
	}
	return p.checksums(text)
}

func (p *proof) bad(address string, err error) error {
	p.snap.Signature = "bad: " + event.Clean(err.Error())
	return event.WithRemedy(fmt.Errorf("%s: the signature was not accepted: %w", address, err),
		"compare it with signed_by and keys in distros.toml; nothing of it is fetched or built before they agree")
}

// checksums takes the file's checksums from the checksum file and the JSON document; where both tell, they have to agree.
func (p *proof) checksums(text []byte) error {
	add := func(list *[]integrity.Sum, name, algorithm string) error {
		v := p.known[name]
		if v == "" {
			return nil
		}
		sum, err := integrity.ParseDigest(v, algorithm)
		if err == nil {
			*list = append(*list, sum)
		}
		return err
	}
	f := p.snap.File
	err := errors.Join(add(&f.Sums, "sha512", "sha512"), add(&f.Sums, "sha256", "sha256"), add(&f.DiskSums, "disk_sha512", "sha512"), add(&f.DiskSums, "disk_sha256", "sha256"))
	if err != nil {
		return fmt.Errorf("the document's checksum of %s: %w", baseName(p.snap.URL), err)
	}
	if p.sums != nil {
		sum, err := p.listed(text)
		if err != nil {
			return fmt.Errorf("%s: %w", p.sums.URL, err)
		}
		agreed := false
		for _, s := range f.Sums {
			if s.Algorithm == sum.Algorithm && s != sum {
				return fmt.Errorf("the checksums of %s differ: its document says %s, %s says %s", baseName(p.snap.URL), s, p.sums.URL, sum)
			}
			agreed = agreed || s == sum
		}
		if !agreed {
			f.Sums = append([]integrity.Sum{sum}, f.Sums...)
		}
	}
	if len(f.Sums) == 0 {
		return fmt.Errorf("no checksum of %s was found: without one there is no image", baseName(p.snap.URL))
	}
	p.snap.Checksum = f.Sums[0].String()
	return nil
}

// listed finds the file's checksum in a checksum file.
func (p *proof) listed(text []byte) (integrity.Sum, error) {
	table, err := integrity.ParseTable(text)
	if err != nil {
		return integrity.Sum{}, err
	}
	names := table.Names()
	if len(names) == 0 {
		return table.Bare()
	}
	name := baseName(p.snap.URL)
	if pattern := p.q.Flavor.Origin.Checksum.Name; pattern != "" {
		re, err := catalog.Pattern(pattern, p.known)
		if err != nil {
			return integrity.Sum{}, err
		}
		fit := ""
		for _, n := range names {
			m := re.FindStringSubmatch(n)
			if m == nil {
				continue
			}
			if fit != "" && fit != n {
				return integrity.Sum{}, fmt.Errorf("%s and %s both fit %s", fit, n, pattern)
			}
			fit = n
			p.known = p.known.with(groups(re, m))
		}
		if fit == "" {
			return integrity.Sum{}, fmt.Errorf("none of its names fits %s", pattern)
		}
		name = fit
	}
	if n, ok := table.Size(name); ok && p.snap.Size == 0 {
		p.snap.Size = n
	}
	return table.Sum(name)
}

func (q Query) now() time.Time {
	if q.Now != nil {
		return q.Now()
	}
	return time.Now()
}
