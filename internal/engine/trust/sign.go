package trust

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/cosign/v2/pkg/oci"
	ociempty "github.com/sigstore/cosign/v2/pkg/oci/empty"
	ocimutate "github.com/sigstore/cosign/v2/pkg/oci/mutate"
	"github.com/sigstore/cosign/v2/pkg/oci/static"
	"github.com/sigstore/sigstore/pkg/signature/payload"
)

// What is wrong with a signature.
var (
	ErrUnsigned = errors.New("it is not signed")
	ErrNotOurs  = errors.New("none of its signatures is by this key")
)

// annotation is where a signature's bytes stand, base64, at its layer (cosign's SIGNATURE_SPEC.md).
const annotation = "dev.cosignproject.cosign/signature"

// maxPayload is the size in bytes of the largest payload that is read.
const maxPayload = 1 << 20

// Tag is the tag under which the signatures of a digest are kept: "sha256-HEX.sig".
func Tag(digest v1.Hash) string { return digest.Algorithm + "-" + digest.Hex + ".sig" }

// Sign returns the signatures of digest with one by the signer among them: old (the image of the signatures that are
// there, or nil) is kept, and where it has a valid one by this signer already it is returned as it is. identity is the
// name that the signature vouches for, HOST/REPOSITORY:TAG.
func Sign(ctx context.Context, s *Signer, repository string, digest v1.Hash, identity string, old v1.Image) (v1.Image, error) {
	if old != nil && Verify(ctx, &s.Key, digest, old) == nil {
		return old, nil
	}
	ref, err := name.NewDigest(repository + "@" + digest.String())
	if err != nil {
		return nil, err
	}
	body, err := payload.Cosign{Image: ref, ClaimedIdentity: identity}.MarshalJSON()
	if err != nil {
		return nil, err
	}
	raw, err := s.signer.SignMessage(bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", digest, err)
	}
	sig, err := static.NewSignature(body, base64.StdEncoding.EncodeToString(raw))
	if err != nil {
		return nil, err
	}
	var all []oci.Signature
	if old != nil {
		if all, err = signatures(old); err != nil {
			return nil, err
		}
	}
	return ocimutate.AppendSignatures(ociempty.Signatures(), false, append(all, sig)...)
}

// Verify says whether one of the signatures in an image of signatures (nil: there is none) is by this key and for this
// digest. Its error is ErrUnsigned, or ErrNotOurs with what each signature lacks.
func Verify(ctx context.Context, k *Key, digest v1.Hash, sigs v1.Image) error {
	if sigs == nil {
		return ErrUnsigned
	}
	all, err := signatures(sigs)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return ErrUnsigned
	}
	var failures []string
	for _, sig := range all {
		_, err := cosign.VerifyImageSignature(ctx, sig, digest, &cosign.CheckOpts{SigVerifier: k.verifier, ClaimVerifier: cosign.SimpleClaimVerifier,
			IgnoreTlog: true, IgnoreSCT: true, Offline: true})
		if err == nil {
			return nil
		}
		failures = append(failures, err.Error())
	}
	return fmt.Errorf("%w (%s): %s", ErrNotOurs, k.ID[:12], strings.Join(failures, "; "))
}

// signatures reads an image of signatures.
func signatures(img v1.Image) ([]oci.Signature, error) {
	m, err := img.Manifest()
	if err != nil {
		return nil, err
	}
	if len(m.Layers) > 1000 {
		return nil, fmt.Errorf("%d signatures: more than 1000", len(m.Layers))
	}
	var all []oci.Signature
	for _, d := range m.Layers {
		layer, err := img.LayerByDigest(d.Digest)
		if err != nil {
			return nil, err
		}
		rc, err := layer.Compressed()
		if err != nil {
			return nil, err
		}
		body, err := io.ReadAll(io.LimitReader(rc, maxPayload+1))
		_ = rc.Close()
		if err != nil {
			return nil, err
		}
		if len(body) > maxPayload {
			return nil, fmt.Errorf("a signature's payload has more than %d bytes", maxPayload)
		}
		sig, err := static.NewSignature(body, d.Annotations[annotation], static.WithAnnotations(d.Annotations))
		if err != nil {
			return nil, err
		}
		all = append(all, sig)
	}
	return all, nil
}
