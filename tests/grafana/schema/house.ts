// What a dashboard may hold, from Grafana's own types: each panel's options and field settings by its type.
import type { AnnotationQuery, Dashboard, FieldConfig, Panel, RowPanel } from '@grafana/schema';
import type * as bargauge from '@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen';
import type * as heatmap from '@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen';
import type * as stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as lanes from '@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen';
import type * as table from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type * as text from '@grafana/schema/dist/esm/raw/composable/text/panelcfg/x/TextPanelCfg_types.gen';
import type * as curves from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

// A type as JSON has it: the members of an enumeration are their strings.
type Plain<T> = 0 extends 1 & T
  ? T
  : T extends string
    ? `${T}`
    : T extends readonly (infer Item)[]
      ? Plain<Item>[]
      : T extends object
        ? { [Key in keyof T]: Plain<T[Key]> }
        : T;

// Data sources' own types are no part of the schema: these are ours, of Prometheus and of Tempo.
type Query = { refId: string; datasource: { type: string; uid: string } } & (
  | { expr: string; format: string; legendFormat: string; editorMode: 'code'; exemplar: boolean; instant: boolean; range: boolean }
  | { query: string; queryType: 'traceql'; limit: number; filters: [] }
);

// What an override may change: settings of every field by their name, those of a panel's fields after `custom.`.
type General = Pick<
  FieldConfig,
  'color' | 'decimals' | 'displayName' | 'links' | 'mappings' | 'max' | 'min' | 'noValue' | 'thresholds' | 'unit'
>;
type Changes<Fields, Prefix extends string = ''> = {
  [Key in keyof Fields & string]-?: { id: `${Prefix}${Key}`; value: NonNullable<Plain<Fields[Key]>> };
}[keyof Fields & string];
type Override<Field> = {
  matcher: { id: 'byName' | 'byFrameRefID' | 'byRegexp'; options: string };
  properties: (Changes<General> | (Field extends Record<string, never> ? never : Changes<Field, 'custom.'>))[];
};

type Is<Type extends string, Options, Field = Record<string, never>> = Omit<
  Plain<Panel>,
  'type' | 'options' | 'fieldConfig' | 'targets'
> & {
  type: Type;
  targets?: Query[];
  options: Partial<Plain<Options>>;
  fieldConfig?: {
    overrides: Override<Field>[];
    defaults: Omit<NonNullable<Plain<Panel>['fieldConfig']>['defaults'], 'custom'> & { custom?: Partial<Plain<Field>> };
  };
};

export type Shown =
  | Is<'bargauge', bargauge.Options>
  | Is<'heatmap', heatmap.Options, heatmap.FieldConfig>
  | Is<'stat', stat.Options>
  | Is<'state-timeline', lanes.Options, lanes.FieldConfig>
  | Is<'table', table.Options, table.FieldConfig>
  | Is<'text', text.Options>
  | Is<'timeseries', curves.Options, curves.FieldConfig>;

// Beside the schema's, what Prometheus' annotations have.
type Mark = Omit<Plain<AnnotationQuery>, 'target'> & {
  target: { refId: 'Anno'; expr: string; instant: boolean; range: boolean };
  titleFormat: string;
  useValueForTime: boolean;
};

export type Board = Omit<Plain<Dashboard>, 'panels' | 'annotations'> & {
  annotations: { list: Mark[] };
  panels: (Shown | (Omit<Plain<RowPanel>, 'panels'> & { panels: Shown[] }))[];
};
