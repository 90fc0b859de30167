import type { Home, Value } from './settings.ts';

const text = (about: string, pattern: RegExp): Value => ({ about, pattern });
const needed = (about: string, pattern: RegExp): Value => ({ about, pattern, required: true });
const secret = (about: string): Value => ({ about, pattern: /^[\x20-\x7e\t\r\n]{1,16384}$/ });

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;
const HOST = /^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$|^\[[0-9a-fA-F:]{2,45}\]$/;
const PORT = /^[1-9][0-9]{0,4}$/;
/** Plain HTTP is for a counterpart on this machine only; endpoint.ts judges that. */
const URL = /^https?:\/\/[A-Za-z0-9.[\]:-]{1,253}(\/[A-Za-z0-9._~/-]{0,256})?$/;
const PREFIX = /^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$/;
const PEM = /^-----BEGIN [A-Z0-9 ]{1,30}-----[A-Za-z0-9+/=\s-]{1,65536}$/;
const AUTHORITY = /^https:\/\/[A-Za-z0-9.[\]:-]{1,253}\/?$/;
const GUID = /^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$/;
const AWS_REGION = /^[a-z]{2,8}(-[a-z]{2,12}){1,3}-[0-9]{1,2}$/;
const GCP_PROJECT = /^[a-z][a-z0-9:.-]{3,62}[a-z0-9]$/;

const endpoint = text(
  'another address of the service, e.g. https://kms.internal:8443; needs credentials of its own',
  URL,
);
const caCertificate: Value = {
  about: 'PEM of the authority that signed the certificate of the endpoint; default: the public ones',
  pattern: PEM,
};
const clientCertificate: Value = { about: 'PEM of the client certificate', pattern: PEM };
const clientKey: Value = { about: 'PEM of its private key', pattern: PEM };
const awsCredentials = {
  accessKeyID: { about: 'access key id', pattern: /^[A-Za-z0-9]{4,128}$/ },
  accessKey: secret('secret access key'),
  sessionToken: secret('token of a temporary session'),
  caCertificate,
};
const gcpCredentials = {
  serviceAccountKey: secret('service account key, the JSON text as Google Cloud makes it'),
  caCertificate,
};
const azureIdentity = {
  tenantID: text('tenant of the service principal or managed identity', GUID),
  clientID: text('client id of the service principal or user-assigned managed identity', GUID),
  authorityHost: text(
    'where tokens come from, e.g. https://login.microsoftonline.us; default: the authority of the cloud',
    AUTHORITY,
  ),
};
const azureCredentials = {
  clientSecret: secret('secret of the service principal'),
  caCertificate,
};
const credentialsPath = text(
  'service account key as a file of the machine that asks (v2.6)',
  /^\/[\x21-\x7e]{1,255}$/,
);

/** Key management systems beside the cluster's own. Names of parameters are those of v2.6 where it had them. */
export const KMS_HOMES = {
  aws: {
    about: 'AWS KMS',
    parameters: {
      region: needed('AWS region, e.g. eu-central-1', AWS_REGION),
      keyName: needed('key id, key ARN or alias/NAME of a symmetric key', /^[A-Za-z0-9:/_-]{1,2048}$/),
      endpoint,
    },
    credentials: awsCredentials,
  },
  gcp: {
    about: 'Google Cloud KMS',
    parameters: {
      projectID: needed('project', GCP_PROJECT),
      location: needed('location of the key ring, e.g. europe-west3', /^[a-z0-9-]{1,63}$/),
      keyRing: needed('key ring', /^[A-Za-z0-9_-]{1,63}$/),
      keyName: needed('symmetric key', /^[A-Za-z0-9_-]{1,63}$/),
      credentialsPath,
      endpoint,
    },
    credentials: gcpCredentials,
  },
  azure: {
    about: 'Azure Key Vault or Managed HSM',
    parameters: {
      vaultName: needed('name of the vault', /^[A-Za-z0-9-]{3,24}$/),
      vaultType: needed(
        'domain of the vault: vault.azure.net, managedhsm.azure.net, or that of another cloud',
        /^(vault\.azure\.net|vault\.azure\.cn|vault\.usgovcloudapi\.net|vault\.microsoftazure\.de|managedhsm\.azure\.net)$/,
      ),
      keyName: needed('RSA key (RSA-OAEP-256) or, in a Managed HSM, AES key', /^[A-Za-z0-9-]{1,127}$/),
      ...azureIdentity,
      endpoint,
    },
    credentials: azureCredentials,
  },
  kmip: {
    about: 'a KMIP 1.4 or 2.0 server',
    parameters: {
      host: needed('host of the server', HOST),
      port: text('its port; default 5696', PORT),
      keyName: needed('unique identifier or name of an AES key', /^[\x21-\x24\x27-\x7e]{1,128}$/),
      version: text('KMIP version, 1.4 (default) or 2.0', /^(1\.4|2\.0)$/),
      serverName: text('name in the certificate of the server; default: host', HOST),
    },
    credentials: {
      clientCertificate: { ...clientCertificate, required: true },
      clientKey: { ...clientKey, required: true },
      caCertificate: { ...caCertificate, required: true },
      username: secret('user name, where the server asks for one'),
      password: secret('its password'),
    },
  },
  vault: {
    about: 'the transit engine of OpenBao or HashiCorp Vault',
    parameters: {
      address: needed('address of the server, e.g. https://bao.internal:8200', URL),
      mount: text('path of the transit engine; default transit', /^[A-Za-z0-9][A-Za-z0-9_/-]{0,127}$/),
      keyName: needed('name of an aes256-gcm96 key', NAME),
      namespace: text('namespace', /^[A-Za-z0-9][A-Za-z0-9_/-]{0,127}$/),
      authMount: text('path of the AppRole method; default approle', /^[A-Za-z0-9][A-Za-z0-9_/-]{0,127}$/),
    },
    credentials: {
      token: secret('token; or give roleID and secretID'),
      roleID: secret('role id of AppRole'),
      secretID: secret('secret id of AppRole'),
      caCertificate,
    },
  },
  pkcs11: {
    about: 'an HSM with PKCS#11, by way of p11-kit over mutual TLS',
    parameters: {
      host: needed('host where p11-kit serves the HSM', HOST),
      port: needed('its port', PORT),
      tokenLabel: needed('label of the token', /^[\x21-\x24\x27-\x7e]{1,32}$/),
      keyName: needed('label of an AES key (CKA_LABEL)', /^[\x21-\x24\x27-\x7e]{1,128}$/),
      serverName: text('name in the certificate of the server; default: host', HOST),
    },
    credentials: {
      clientCertificate: { ...clientCertificate, required: true },
      clientKey: { ...clientKey, required: true },
      caCertificate: { ...caCertificate, required: true },
      pin: { ...secret('user PIN of the token'), required: true },
    },
  },
} as const satisfies Record<string, Home>;

/** Stores for wrapped DEKs. */
export const STORE_HOMES = {
  kubernetes: {
    about: 'Secrets in the namespace asterism-keys of the cluster',
    parameters: {},
    credentials: {},
  },
  aws: {
    about: 'AWS S3',
    parameters: {
      bucket: needed('bucket', /^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/),
      region: needed('AWS region, e.g. eu-central-1', AWS_REGION),
      prefix: text('what names of objects begin with, e.g. asterism/mini/', PREFIX),
      endpoint,
    },
    credentials: awsCredentials,
  },
  gcp: {
    about: 'Google Cloud Storage',
    parameters: {
      projectID: needed('project', GCP_PROJECT),
      bucket: needed('bucket', /^[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]$/),
      prefix: text('what names of objects begin with, e.g. asterism/mini/', PREFIX),
      credentialsPath,
      endpoint,
    },
    credentials: gcpCredentials,
  },
  azure: {
    about: 'Azure Blob Storage',
    parameters: {
      account: needed('storage account', /^[a-z0-9]{3,24}$/),
      container: needed('container', /^[a-z0-9](-?[a-z0-9]){2,62}$/),
      prefix: text('what names of blobs begin with, e.g. asterism/mini/', PREFIX),
      ...azureIdentity,
      endpoint,
    },
    credentials: {
      ...azureCredentials,
      accountKey: secret('key of the storage account, where no identity is used'),
    },
  },
} as const satisfies Record<string, Home>;

export type KmsName = keyof typeof KMS_HOMES;
export type StoreName = keyof typeof STORE_HOMES;
