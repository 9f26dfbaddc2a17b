// The codes that the generator and the live activity write. Small sets of real coding systems, as far as their licences allow them to be shipped:
//
// LOINC: This material contains content from LOINC (http://loinc.org). LOINC is copyright © Regenstrief Institute, Inc. and the Logical Observation
// Identifiers Names and Codes (LOINC) Committee and is available at no cost under the license at http://loinc.org/license. LOINC® is a registered United
// States trademark of Regenstrief Institute, Inc.
// UCUM: copyright © Regenstrief Institute, Inc. and the UCUM Organization, under the terms of use at https://ucum.org/license.
// ICD-10: codes and titles of the International Statistical Classification of Diseases and Related Health Problems, World Health Organization.
// Medicines have codes of the hospital's own formulary, and their International Nonproprietary Names, which nobody owns: ATC may not be shipped with
// something that is sold (https://atcddd.fhi.no/copyright_disclaimer/).

export const SYSTEMS = {
  loinc: 'http://loinc.org',
  icd10: 'http://hl7.org/fhir/sid/icd-10',
  ucum: 'http://unitsofmeasure.org',
  actCode: 'http://terminology.hl7.org/CodeSystem/v3-ActCode',
  observationCategory: 'http://terminology.hl7.org/CodeSystem/observation-category',
  interpretation: 'http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation',
  consentScope: 'http://terminology.hl7.org/CodeSystem/consentscope',
  dischargeDisposition: 'http://terminology.hl7.org/CodeSystem/discharge-disposition',
  appointmentCancellation: 'http://terminology.hl7.org/CodeSystem/appointment-cancellation-reason',
  locationType: 'http://terminology.hl7.org/CodeSystem/v3-RoleCode',
  formulary: 'https://his.osun.example/formulary',
  tariff: 'https://his.osun.example/tariff',
} as const

/** What is normal for somebody. */
export interface Range {
  readonly low: number
  readonly high: number
}

export interface LaboratoryTest {
  readonly loinc: string
  readonly display: string
  /** UCUM's code. */
  readonly unit: string
  /** How many digits behind the point the analyser gives. */
  readonly digits: number
  readonly man: Range
  readonly woman: Range
  readonly child: Range
  /** Hours from the sample to the result, about. */
  readonly turnaroundHours: number
}

function test(
  loinc: string,
  display: string,
  unit: string,
  more: { digits: number; hours: number; range: Range; woman?: Range; child?: Range },
): LaboratoryTest {
  const { digits, hours: turnaroundHours, range: man, woman = man, child = man } = more
  return { loinc, display, unit, digits, man, woman, child, turnaroundHours }
}

export const LABORATORY_TESTS = {
  hemoglobin: test('718-7', 'Hemoglobin [Mass/volume] in Blood', 'g/dL', {
    digits: 1,
    hours: 3,
    range: { low: 13, high: 17 },
    woman: { low: 12, high: 15.5 },
    child: { low: 11, high: 14 },
  }),
  hematocrit: test('4544-3', 'Hematocrit [Volume Fraction] of Blood by Automated count', '%', {
    digits: 0,
    hours: 3,
    range: { low: 39, high: 50 },
    woman: { low: 36, high: 46 },
    child: { low: 33, high: 42 },
  }),
  leukocytes: test('6690-2', 'Leukocytes [#/volume] in Blood by Automated count', '10*3/uL', {
    digits: 1,
    hours: 3,
    range: { low: 4, high: 11 },
    child: { low: 5, high: 14.5 },
  }),
  platelets: test('777-3', 'Platelets [#/volume] in Blood by Automated count', '10*3/uL', {
    digits: 0,
    hours: 3,
    range: { low: 150, high: 400 },
  }),
  glucose: test('2345-7', 'Glucose [Mass/volume] in Serum or Plasma', 'mg/dL', {
    digits: 0,
    hours: 2,
    range: { low: 70, high: 140 },
  }),
  hba1c: test('4548-4', 'Hemoglobin A1c/Hemoglobin.total in Blood', '%', {
    digits: 1,
    hours: 24,
    range: { low: 4, high: 5.6 },
  }),
  creatinine: test('2160-0', 'Creatinine [Mass/volume] in Serum or Plasma', 'mg/dL', {
    digits: 2,
    hours: 5,
    range: { low: 0.7, high: 1.3 },
    woman: { low: 0.6, high: 1.1 },
    child: { low: 0.3, high: 0.7 },
  }),
  ureaNitrogen: test('3094-0', 'Urea nitrogen [Mass/volume] in Serum or Plasma', 'mg/dL', {
    digits: 0,
    hours: 5,
    range: { low: 7, high: 20 },
    child: { low: 5, high: 18 },
  }),
  sodium: test('2951-2', 'Sodium [Moles/volume] in Serum or Plasma', 'mmol/L', {
    digits: 0,
    hours: 5,
    range: { low: 135, high: 145 },
  }),
  potassium: test('2823-3', 'Potassium [Moles/volume] in Serum or Plasma', 'mmol/L', {
    digits: 1,
    hours: 5,
    range: { low: 3.5, high: 5.1 },
  }),
  alt: test('1742-6', 'Alanine aminotransferase [Enzymatic activity/volume] in Serum or Plasma', 'U/L', {
    digits: 0,
    hours: 6,
    range: { low: 7, high: 55 },
  }),
  bilirubin: test('1975-2', 'Bilirubin.total [Mass/volume] in Serum or Plasma', 'mg/dL', {
    digits: 1,
    hours: 6,
    range: { low: 0.1, high: 1.2 },
  }),
  cholesterol: test('2093-3', 'Cholesterol [Mass/volume] in Serum or Plasma', 'mg/dL', {
    digits: 0,
    hours: 12,
    range: { low: 100, high: 200 },
  }),
  crp: test('1988-5', 'C reactive protein [Mass/volume] in Serum or Plasma', 'mg/L', {
    digits: 1,
    hours: 6,
    range: { low: 0.1, high: 5 },
  }),
} as const satisfies Record<string, LaboratoryTest>

export type TestName = keyof typeof LABORATORY_TESTS

/** Documents by their LOINC type. */
export const DOCUMENT_TYPES = {
  dischargeSummary: { code: '18842-5', display: 'Discharge summary', contentType: 'application/pdf' },
  laboratoryReport: { code: '11502-2', display: 'Laboratory report', contentType: 'text/plain' },
  referralNote: { code: '57133-1', display: 'Referral note', contentType: 'text/plain' },
} as const

export type DocumentType = keyof typeof DOCUMENT_TYPES

/** LOINC's for the category of a consent. */
export const CONSENT_CATEGORY = { code: '59284-0', display: 'Patient Consent' } as const

export const ENCOUNTER_CLASSES = {
  AMB: 'ambulatory',
  EMER: 'emergency',
  IMP: 'inpatient encounter',
} as const

export type EncounterClass = keyof typeof ENCOUNTER_CLASSES
