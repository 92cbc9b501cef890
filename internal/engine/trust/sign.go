package trust

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/cosign/v2/pkg/oci"
	ociempty "github.com/sigstore/cosign/v2/pkg/oci/empty"
	ocimutate "github.com/sigstore/cosign/v2/pkg/oci/mutate"
	"github.com/sigstore/cosign/v2/pkg/oci/static"
	ctypes "github.com/sigstore/cosign/v2/pkg/types"
	"github.com/sigstore/sigstore/pkg/signature/payload"
)

// What is wrong with an image's signatures.
var (
	ErrUnsigned = errors.New("it is not signed")
	ErrWrongKey = errors.New("it is not signed by this key")
	ErrTampered = errors.New("its signature was tampered with")
)

const (
	// keyAnnotation names a signature's key, by its ID, at the signature's layer: for messages only, nothing rests on it.
	keyAnnotation = "io.kmi.key"

	maxPayload    = 1 << 20  // bytes
	maxPayloads   = 16 << 20 // bytes of all of one digest
	maxSignatures = 1000     // of one digest, which is cosign's limit too
)

// Tag is the tag under which the signatures of a digest are kept: "sha256-HEX.sig" (cosign, specs/SIGNATURE_SPEC.md).
func Tag(digest v1.Hash) string { return digest.Algorithm + "-" + digest.Hex + ".sig" }

// Claim is what one valid signature vouches for.
type Claim struct {
	Digest   v1.Hash
	Identity string // the image's name, HOST/REPOSITORY:TAG; "" for none
	Key      string // ID of the key
}

// NewSignature signs a digest: a simple signing payload, as cosign and podman read it. identity is the name that the
// signature vouches for, HOST/REPOSITORY:TAG, or "" for none, which podman does not accept.
func NewSignature(s *Signer, digest v1.Hash, identity string) (oci.Signature, error) {
	if identity != "" {
		if _, err := name.ParseReference(identity); err != nil {
			return nil, fmt.Errorf("the name to sign for: %w", err)
		}
	}
	body, err := json.Marshal(payload.SimpleContainerImage{Critical: payload.Critical{
		Identity: payload.Identity{DockerReference: identity},
		Image:    payload.Image{DockerManifestDigest: digest.String()},
		Type:     payload.CosignSignatureType,
	}})
	if err != nil {
		return nil, err
	}
	raw, err := s.signer.SignMessage(bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", digest, err)
	}
	return static.NewSignature(body, base64.StdEncoding.EncodeToString(raw), static.WithAnnotations(map[string]string{keyAnnotation: s.ID}))
}

// Sign returns the image of a digest's signatures with one by the signer among them. old, the image of those that are
// there, may be nil: other people's signatures stay, and where there is a valid one by this signer for this name already,
// it is returned as it is. identity is the name that the signature vouches for, HOST/REPOSITORY:TAG; "" means repository,
// without tag.
func Sign(ctx context.Context, s *Signer, repository string, digest v1.Hash, identity string, old v1.Image) (v1.Image, error) {
	if identity == "" {
		identity = repository
	}
	base := oci.Signatures(ociempty.Signatures())
	if old != nil {
		claims, err := Claims(ctx, &s.Key, digest, old)
		if err != nil && !errors.Is(err, ErrUnsigned) && !errors.Is(err, ErrWrongKey) && !errors.Is(err, ErrTampered) {
			return nil, err
		}
		for _, c := range claims {
			if c.Identity == identity {
				return old, nil
			}
		}
		base = &signatures{old}
	}
	sig, err := NewSignature(s, digest, identity)
	if err != nil {
		return nil, err
	}
	all, err := ocimutate.AppendSignatures(base, false, sig)
	if err != nil {
		return nil, err
	}
	return struct{ v1.Image }{all}, nil // only the image is what a registry stores
}

// Merge returns an image of signatures with all those of have, and those of add that have lacks. have is returned as it
// is where it lacks none, add where have is nil.
func Merge(have, add v1.Image) (v1.Image, error) {
	if have == nil {
		return add, nil
	}
	there, err := (&signatures{have}).read()
	if err != nil {
		return nil, err
	}
	more, err := (&signatures{add}).read()
	if err != nil {
		return nil, err
	}
	var missing []oci.Signature
	for _, m := range more {
		if slices.ContainsFunc(there, func(t stored) bool {
			return t.digest == m.digest && t.annotations[static.SignatureAnnotationKey] == m.annotations[static.SignatureAnnotationKey]
		}) {
			continue
		}
		sig, err := m.signature()
		if err != nil {
			return nil, err
		}
		missing = append(missing, sig)
	}
	if len(missing) == 0 {
		return have, nil
	}
	all, err := ocimutate.AppendSignatures(&signatures{have}, false, missing...)
	if err != nil {
		return nil, err
	}
	return struct{ v1.Image }{all}, nil
}

// Verify says whether one of the signatures in an image of signatures (nil: there is none) is by this key and for this
// digest. Its error is ErrUnsigned, ErrWrongKey or ErrTampered (of several signatures, several may hold), or one of
// reading.
func Verify(ctx context.Context, k *Key, digest v1.Hash, sigs v1.Image) error {
	_, err := Claims(ctx, k, digest, sigs)
	return err
}

// Claims returns what the signatures that Verify accepts vouch for, at least one; its error is Verify's.
func Claims(ctx context.Context, k *Key, digest v1.Hash, sigs v1.Image) ([]Claim, error) {
	if sigs == nil {
		return nil, ErrUnsigned
	}
	all, err := (&signatures{sigs}).read()
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, ErrUnsigned
	}
	var claims []Claim
	var failures []error
	for _, sig := range all {
		c, err := verify(ctx, k, digest, sig)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		claims = append(claims, c)
	}
	if len(claims) == 0 {
		return nil, errors.Join(failures...)
	}
	return claims, nil
}

func verify(ctx context.Context, k *Key, digest v1.Hash, sig stored) (Claim, error) {
	claim := Claim{Digest: digest, Key: k.ID}
	if sum := sha256.Sum256(sig.payload); hex.EncodeToString(sum[:]) != sig.digest.Hex {
		return claim, fmt.Errorf("%w: expected a payload with the digest %s, found sha256:%x", ErrTampered, sig.digest, sum)
	}
	options := &cosign.CheckOpts{SigVerifier: k.verifier, IgnoreTlog: true, IgnoreSCT: true, Offline: true}
	// Without the other annotations: a certificate would have its say besides the key.
	signed, err := static.NewSignature(sig.payload, sig.annotations[static.SignatureAnnotationKey])
	if err != nil {
		return claim, err
	}
	if _, err := cosign.VerifyImageSignature(ctx, signed, digest, options); err != nil {
		if ctx.Err() != nil {
			return claim, context.Cause(ctx)
		}
		by := sig.annotations[keyAnnotation]
		switch {
		case by == k.ID:
			return claim, fmt.Errorf("%w: it says it is by key %s and does not verify with it", ErrTampered, k)
		case len(by) == len(k.ID):
			return claim, fmt.Errorf("%w: it is by key %.16q, expected %s", ErrWrongKey, by, k)
		}
		return claim, fmt.Errorf("%w (%s): %w", ErrWrongKey, k, err)
	}
	var said payload.SimpleContainerImage
	if err := json.Unmarshal(sig.payload, &said); err != nil {
		return claim, fmt.Errorf("%w: its payload is no simple signing document: %w", ErrTampered, err)
	}
	if said.Critical.Type != payload.CosignSignatureType {
		return claim, fmt.Errorf("%w: it is of type %q", ErrTampered, said.Critical.Type)
	}
	if found := said.Critical.Image.DockerManifestDigest; found != digest.String() {
		return claim, fmt.Errorf("%w: it is the signature of another image: expected %s, found %s", ErrTampered, digest, found)
	}
	claim.Identity = said.Critical.Identity.DockerReference
	return claim, nil
}

// signatures is an image of signatures as cosign's packages want it.
type signatures struct{ v1.Image }

// stored is a signature as it is kept.
type stored struct {
	digest      v1.Hash // of the payload, as the manifest has it
	payload     []byte
	annotations map[string]string
}

func (s stored) signature() (oci.Signature, error) {
	return static.NewSignature(s.payload, s.annotations[static.SignatureAnnotationKey], static.WithAnnotations(s.annotations))
}

// Get makes signatures cosign's oci.Signatures.
func (s *signatures) Get() ([]oci.Signature, error) {
	all, err := s.read()
	if err != nil {
		return nil, err
	}
	var list []oci.Signature
	for _, one := range all {
		sig, err := one.signature()
		if err != nil {
			return nil, err
		}
		list = append(list, sig)
	}
	return list, nil
}

func (s *signatures) read() (all []stored, err error) {
	m, err := s.Manifest()
	if err != nil {
		return nil, err
	}
	if len(m.Layers) > maxSignatures {
		return nil, fmt.Errorf("there are %d signatures, more than %d", len(m.Layers), maxSignatures)
	}
	total := 0
	for _, d := range m.Layers {
		if d.MediaType != ctypes.SimpleSigningMediaType {
			continue
		}
		layer, err := s.LayerByDigest(d.Digest)
		if err != nil {
			return nil, err
		}
		rc, err := layer.Compressed() // as it is stored
		if err != nil {
			return nil, err
		}
		body, err := io.ReadAll(io.LimitReader(rc, maxPayload+1))
		if err = errors.Join(err, rc.Close()); err != nil {
			return nil, err
		}
		if len(body) > maxPayload {
			return nil, fmt.Errorf("a signature's payload has more than %d bytes", maxPayload)
		}
		if total += len(body); total > maxPayloads {
			return nil, fmt.Errorf("the signatures' payloads have more than %d bytes", maxPayloads)
		}
		all = append(all, stored{d.Digest, body, d.Annotations})
	}
	return all, nil
}
