// Reads a quote, its signature and its key (each encoded as the TPM gives it, base64 in JSON) from standard input and
// prints what go-tpm makes of them.
package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"os"

	"github.com/google/go-tpm/tpm2"
)

type request struct{ Attest, Signature, Public []byte }

type selection struct {
	Hash int    `json:"hash"`
	PCRs []uint `json:"pcrs"`
}

type answer struct {
	Name            string      `json:"name"`
	QualifiedSigner string      `json:"qualifiedSigner"`
	ExtraData       string      `json:"extraData"`
	PCRDigest       string      `json:"pcrDigest"`
	Selections      []selection `json:"selections"`
	Clock           string      `json:"clock"`
	SignatureHolds  bool        `json:"signatureHolds"`
	SamePublic      bool        `json:"samePublic"`
}

func run() error {
	var in request
	if err := json.NewDecoder(os.Stdin).Decode(&in); err != nil {
		return err
	}
	attest, err := tpm2.Unmarshal[tpm2.TPMSAttest](in.Attest)
	if err != nil {
		return fmt.Errorf("attest: %w", err)
	}
	if err := attest.Magic.Check(); err != nil {
		return err
	}
	quote, err := attest.Attested.Quote()
	if err != nil {
		return fmt.Errorf("quote: %w", err)
	}
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](in.Public)
	if err != nil {
		return fmt.Errorf("public: %w", err)
	}
	name, err := tpm2.ObjectName(public)
	if err != nil {
		return err
	}
	signature, err := tpm2.Unmarshal[tpm2.TPMTSignature](in.Signature)
	if err != nil {
		return fmt.Errorf("signature: %w", err)
	}
	holds, err := verify(public, signature, in.Attest)
	if err != nil {
		return err
	}
	out := answer{
		Name:            hex.EncodeToString(name.Buffer),
		QualifiedSigner: hex.EncodeToString(attest.QualifiedSigner.Buffer),
		ExtraData:       hex.EncodeToString(attest.ExtraData.Buffer),
		PCRDigest:       hex.EncodeToString(quote.PCRDigest.Buffer),
		Clock:           fmt.Sprint(attest.ClockInfo.Clock),
		SignatureHolds:  holds,
		SamePublic:      bytes.Equal(tpm2.Marshal(public), in.Public),
	}
	for _, bank := range quote.PCRSelect.PCRSelections {
		chosen := selection{Hash: int(bank.Hash), PCRs: []uint{}}
		for i := uint(0); i < uint(len(bank.PCRSelect))*8; i++ {
			if bank.PCRSelect[i/8]>>(i%8)&1 == 1 {
				chosen.PCRs = append(chosen.PCRs, i)
			}
		}
		out.Selections = append(out.Selections, chosen)
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}

func verify(public *tpm2.TPMTPublic, signature *tpm2.TPMTSignature, message []byte) (bool, error) {
	digest := sha256.Sum256(message)
	key, err := tpm2.Pub(*public)
	if err != nil {
		return false, err
	}
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		s, err := signature.Signature.ECDSA()
		if err != nil {
			return false, err
		}
		r := new(big.Int).SetBytes(s.SignatureR.Buffer)
		return ecdsa.Verify(key, digest[:], r, new(big.Int).SetBytes(s.SignatureS.Buffer)), nil
	case *rsa.PublicKey:
		s, err := signature.Signature.RSASSA()
		if err != nil {
			return false, err
		}
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], s.Sig.Buffer) == nil, nil
	}
	return false, fmt.Errorf("a key of type %T", key)
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
