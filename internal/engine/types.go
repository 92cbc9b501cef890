// Package engine takes every image of the release chart from its upstream to its users: it resolves, fetches,
// customises, packs, tests, signs and publishes. It knows nothing of terminals.
package engine

import (
	"time"

	"github.com/ContainerCraft/kmi-tui/internal/engine/catalog"
	"github.com/ContainerCraft/kmi-tui/internal/engine/event"
)

// Event and its kinds are what a run reports; see package event.
type (
	Event        = event.Event
	Subscription = event.Subscription
	Transcript   = event.Transcript
)

// Stage is a step on the way of an image.
type Stage string

const (
	Resolve   Stage = "resolve"
	Fetch     Stage = "fetch"
	Customise Stage = "customise"
	Pack      Stage = "pack"
	Test      Stage = "test"
	Sign      Stage = "sign"
	Publish   Stage = "publish"
)

// Stages is the way of an image, in its order.
var Stages = []Stage{Resolve, Fetch, Customise, Pack, Test, Sign, Publish}

// Target is a release for one architecture: the unit of work.
type Target struct {
	Flavor      *catalog.Flavor
	Release     *catalog.Release
	Arch        catalog.Arch
	Newest      bool   // no release of the flavor is newer
	Unsupported string // why its way ends before it is published; "" when it does not
	Last        Stage  // where Unsupported: the last stage that can be run; "" for none
}

// String is the target as selectors and events spell it: "debian:12/x86_64".
func (t Target) String() string {
	return t.Flavor.ID + ":" + t.Release.Version + "/" + string(t.Arch)
}

// Selection says what a run is about.
type Selection struct {
	Only   []string        `json:"only,omitempty"`   // selectors: globs over FLAVOR, FLAVOR:RELEASE or FLAVOR:RELEASE/ARCH; empty: all
	Levels []catalog.Level `json:"levels,omitempty"` // empty: every level but planned, unless Only names the flavor
	Until  Stage           `json:"until,omitempty"`  // the last stage to run; "" means Publish
	Force  bool            `json:"force,omitempty"`  // do it even where nothing has changed
}

// Action is what a run would do with a target.
type Action string

const (
	Build Action = "build"
	None  Action = "none"
	Fail  Action = "fail"
)

// Plan says what a run would do with one target, and why. Its JSON form is the output of `--plan --output json`.
type Plan struct {
	Target    string     `json:"target"`
	Action    Action     `json:"action"`
	Reason    string     `json:"reason"`
	Remedy    string     `json:"remedy,omitempty"` // of Fail: what to do about it
	Upstream  *Upstream  `json:"upstream"`
	Published *Published `json:"published"`
	Licence   *Licence   `json:"licence"`
	Origin    string     `json:"origin,omitempty"` // "packages", "image", "installer", "none"
	Way       string     `json:"way,omitempty"`    // of customising an image: "chroot", "guestfs", "boot", "copy"; "" if this machine cannot
	WayReason string     `json:"way_reason,omitempty"`
}

// Licence says whether an image may be passed on.
type Licence struct {
	Redistribution string `json:"redistribution"` // "free", "unclear", "restricted"
	URL            string `json:"url"`
	Because        string `json:"because,omitempty"`
	Decision       string `json:"decision,omitempty"` // what maintainers decided where it is unclear
}

// Upstream is the newest that the distribution offers.
type Upstream struct {
	URL       string    `json:"url"`
	Size      int64     `json:"size"` // bytes
	Date      time.Time `json:"date"`
	Build     string    `json:"build"`
	Checksum  string    `json:"checksum"`  // "sha256:HEX", "sha512:HEX"
	Signature string    `json:"signature"` // "verified FINGERPRINT", "over the file by …", "not offered", "missing", "bad: …"
	Trust     string    `json:"trust"`     // what vouches for it: "checksum signed (openpgp)", "checksum over TLS only: …"
}

// Published is what the registry has of the target.
type Published struct {
	Digest     string    `json:"digest"` // of the architecture's manifest: "sha256:HEX"
	Tags       []string  `json:"tags"`
	Date       time.Time `json:"date"`
	ContentKey string    `json:"content_key"`
	Build      string    `json:"build,omitempty"`     // upstream's name for what it was made of
	Signature  string    `json:"signature,omitempty"` // "verified KEY", "bad: …"; "" where nobody has looked, as the image is old anyway
}

// Result is how one target ended.
type Result struct {
	Target  string      `json:"target"`
	State   event.Kind  `json:"state"` // finished, skipped or failed
	Reason  string      `json:"reason,omitempty"`
	Error   string      `json:"error,omitempty"`
	Remedy  string      `json:"remedy,omitempty"`
	Image   string      `json:"image,omitempty"` // REPOSITORY@DIGEST of what is published
	Tags    []string    `json:"tags,omitempty"`
	Stages  []StageTime `json:"stages"`
	Seconds float64     `json:"seconds"`
}

// StageTime is how one stage of a target ended and how long it took.
type StageTime struct {
	Stage   Stage      `json:"stage"`
	State   event.Kind `json:"state"`
	Reason  string     `json:"reason,omitempty"`
	Seconds float64    `json:"seconds"`
	Log     string     `json:"log,omitempty"` // the whole, raw log
}

// Summary is how a run ended.
type Summary struct {
	Results []Result `json:"results"`
	Seconds float64  `json:"seconds"`
}

// Failed counts the targets that failed.
func (s Summary) Failed() (n int) {
	for _, r := range s.Results {
		if r.State == event.Failed {
			n++
		}
	}
	return n
}
