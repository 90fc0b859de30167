// Issues and verifies vTPM documents with go-tpm-tools, as Go peers of v2.6 do.
//
//	attest-peer issue SOCKET LOGFILE USERDATA NONCE    document on standard output
//	attest-peer verify USERDATA NONCE                  document on standard input, what was verified on standard output
//
// USERDATA and NONCE are hexadecimal.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"crypto"

	"github.com/google/go-tpm-tools/client"
	"github.com/google/go-tpm-tools/proto/attest"
	"github.com/google/go-tpm-tools/server"
	"github.com/google/go-tpm/tpm2"
)

type document struct {
	Attestation  *attest.Attestation
	InstanceInfo []byte
	UserData     []byte
}

func extraData(userData, nonce []byte) []byte {
	digest := sha256.Sum256(append(append([]byte{}, userData...), nonce...))
	return digest[:]
}

// The machine's own event log has nothing to do with this TPM: another one stands in for it.
type tpmWithLog struct {
	io.ReadWriteCloser
	log []byte
}

func (t tpmWithLog) EventLog() ([]byte, error) { return t.log, nil }

func issue(socket string, log, userData, nonce []byte) error {
	connection, err := tpm2.OpenTPM(socket)
	if err != nil {
		return err
	}
	defer connection.Close()
	tpm := tpmWithLog{connection, log}
	key, err := client.AttestationKeyRSA(tpm)
	if err != nil {
		return err
	}
	defer key.Close()
	made, err := key.Attest(client.AttestOpts{Nonce: extraData(userData, nonce)})
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(document{Attestation: made, UserData: userData})
}

func verify(userData, nonce []byte) error {
	raw, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	var doc document
	if err := json.Unmarshal(raw, &doc); err != nil {
		return err
	}
	public, err := tpm2.DecodePublic(doc.Attestation.AkPub)
	if err != nil {
		return err
	}
	key, err := public.Key()
	if err != nil {
		return err
	}
	if !bytes.Equal(doc.UserData, userData) {
		return errors.New("other user data")
	}
	state, err := server.VerifyAttestation(doc.Attestation, server.VerifyOpts{
		Nonce:      extraData(doc.UserData, nonce),
		TrustedAKs: []crypto.PublicKey{key},
	})
	if err != nil {
		return err
	}
	pcrs := map[uint32]string{}
	for index, value := range doc.Attestation.Quotes[0].Pcrs.Pcrs {
		pcrs[index] = hex.EncodeToString(value)
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"pcrs": pcrs, "hash": state.Hash.String(), "events": len(state.RawEvents),
	})
}

func run(args []string) error {
	if len(args) < 3 {
		return errors.New("issue SOCKET LOGFILE USERDATA NONCE | verify USERDATA NONCE")
	}
	userData, err := hex.DecodeString(args[len(args)-2])
	if err != nil {
		return err
	}
	nonce, err := hex.DecodeString(args[len(args)-1])
	if err != nil {
		return err
	}
	if args[0] == "issue" && len(args) == 5 {
		log, err := os.ReadFile(args[2])
		if err != nil {
			return err
		}
		return issue(args[1], log, userData, nonce)
	}
	return verify(userData, nonce)
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
